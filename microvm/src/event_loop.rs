//! The event loop: one thread on which every device's back end works.
//!
//! `epoll(7)` tells which descriptor is ready; its handler then does all it can without waiting. One thread is enough:
//! the devices spend their time in the kernel, and a second thread would cost each of them a lock.
//!
//! All descriptors are watched edge-triggered. An event says that something *changed*, so a device tries whatever it
//! may have to do, until the host says EAGAIN or the guest gives no more buffers. Back-pressure needs nothing more: a
//! device that has no room simply does not read. And an eventfd need not be read to be armed again: each write to it is
//! an edge (epoll(7), "Level-triggered and edge-triggered"), which saves a system call for each notification.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::Error;
use crate::jail::{self, Role};

/// Something that reacts to descriptors.
pub trait EventHandler: Send {
    /// The descriptors to watch. They must be open as long as the handler lives, and must not block.
    fn descriptors(&self) -> Vec<RawFd>;

    /// The descriptor at this place in the list is readable or writable, or its other end is gone. May be called when
    /// nothing changed.
    fn ready(&mut self, index: usize);
}

/// Events fetched from the kernel at once.
const BATCH: usize = 32;

/// The `data` of the stop event; the others carry the handler's number and the place of the descriptor in its list.
const STOP: u64 = u64::MAX;

/// The handlers, before their thread is started.
pub struct EventLoop {
    epoll: Epoll,
    stop: Arc<EventFd>,
    handlers: Vec<Box<dyn EventHandler>>,
}

/// The running thread. Dropping it stops and joins it.
#[derive(Debug)]
pub struct RunningLoop {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl EventLoop {
    /// A loop without handlers.
    ///
    /// # Errors
    /// Where the process has no descriptors left.
    pub fn new() -> Result<Self, Error> {
        let epoll = Epoll::new().map_err(Error::system("make the event loop (epoll_create1)"))?;
        let stop = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)
            .map_err(Error::system("make the event loop's stop event (eventfd)"))?;
        watch(&epoll, stop.as_raw_fd(), EventSet::IN, STOP)?;
        Ok(Self { epoll, stop: Arc::new(stop), handlers: Vec::new() })
    }

    /// Adds a handler and watches its descriptors.
    ///
    /// # Errors
    /// A descriptor that cannot be watched: a regular file, or one that is closed.
    pub fn add(&mut self, handler: Box<dyn EventHandler>) -> Result<(), Error> {
        let number = (self.handlers.len() as u64) << 32;
        for (index, fd) in handler.descriptors().into_iter().enumerate() {
            let events = EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
            watch(&self.epoll, fd, events, number | index as u64)?;
        }
        self.handlers.push(handler);
        Ok(())
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// Where the process may not have another thread.
    pub fn spawn(self) -> Result<RunningLoop, Error> {
        let stop = self.stop.clone();
        let thread = thread::Builder::new()
            .name("devices".into())
            .spawn(move || self.run())
            .map_err(Error::system("start the event loop's thread"))?;
        Ok(RunningLoop { stop, thread: Some(thread) })
    }

    fn run(mut self) {
        jail::enter(Role::Devices);
        let mut events = [EpollEvent::default(); BATCH];
        loop {
            let count = match self.epoll.wait(-1, &mut events) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // EBADF, EFAULT and EINVAL are all that is left (epoll_wait(2)): none can happen here.
                Err(error) => unreachable!("epoll_wait: {error}"),
            };
            for event in &events[..count] {
                if event.data() == STOP {
                    return;
                }
                let (handler, index) = ((event.data() >> 32) as usize, event.data() as u32 as usize);
                self.handlers[handler].ready(index);
            }
        }
    }
}

impl RunningLoop {
    /// Stops the thread and waits for its end.
    pub fn stop(&mut self) {
        // The counter cannot overflow: it is written once.
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for RunningLoop {
    fn drop(&mut self) {
        self.stop();
    }
}

fn watch(epoll: &Epoll, fd: RawFd, events: EventSet, data: u64) -> Result<(), Error> {
    epoll
        .ctl(ControlOperation::Add, fd, EpollEvent::new(events, data))
        .map_err(Error::system("watch a device's descriptor (epoll_ctl)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    /// Tells which of its descriptors was ready, and never reads any.
    struct Teller {
        events: Vec<Arc<EventFd>>,
        said: Sender<usize>,
    }

    impl EventHandler for Teller {
        fn descriptors(&self) -> Vec<RawFd> {
            self.events.iter().map(AsRawFd::as_raw_fd).collect()
        }
        fn ready(&mut self, index: usize) {
            self.said.send(index).unwrap();
        }
    }

    fn running() -> (RunningLoop, Vec<Arc<EventFd>>, Receiver<usize>) {
        let events: Vec<_> = (0..3).map(|_| Arc::new(EventFd::new(EFD_NONBLOCK).unwrap())).collect();
        let (said, heard) = channel();
        let mut event_loop = EventLoop::new().unwrap();
        event_loop.add(Box::new(Teller { events: events.clone(), said })).unwrap();
        let running = event_loop.spawn().unwrap();
        // Each is writable from the start, which is news: edge-triggered means once.
        for _ in &events {
            heard.recv_timeout(Duration::from_secs(20)).unwrap();
        }
        (running, events, heard)
    }

    #[test]
    fn a_handler_hears_each_write_to_an_event_although_nobody_reads_it() {
        let (_running, events, heard) = running();
        for index in [1, 0, 1, 2, 1] {
            events[index].write(1).unwrap();
            assert_eq!(heard.recv_timeout(Duration::from_secs(20)), Ok(index));
        }
    }

    #[test]
    fn a_stopped_loop_has_no_thread_and_no_handlers() {
        let (mut running, events, heard) = running();
        running.stop();
        assert_eq!(Arc::strong_count(&events[0]), 1, "the handler is dropped");
        assert!(heard.recv().is_err());
    }

    #[test]
    fn what_cannot_be_watched_is_an_error() {
        struct Closed;
        impl EventHandler for Closed {
            fn descriptors(&self) -> Vec<RawFd> {
                vec![RawFd::MAX]
            }
            fn ready(&mut self, _index: usize) {}
        }
        assert!(EventLoop::new().unwrap().add(Box::new(Closed)).is_err());
    }
}
