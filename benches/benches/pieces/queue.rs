//! One request through a virtqueue (virtio 1.2, 2.7): the driver's part is written into memory as a guest would, the device takes
//! the chain of two descriptors and gives it back.

use std::hint::black_box;

use criterion::Criterion;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const SIZE: u16 = 64;
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;

/// One operation, all of it.
pub fn operations(criterion: &mut Criterion) {
    let mut group = super::group(criterion, "virtqueue");
    let memory =
        GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x10000)]).expect("memory for a queue");
    let mut queue = Queue::new(SIZE).expect("the size is a power of two");
    queue.set_size(SIZE);
    queue.set_desc_table_address(Some(DESCRIPTORS as u32), Some(0));
    queue.set_avail_ring_address(Some(AVAILABLE as u32), Some(0));
    queue.set_used_ring_address(Some(USED as u32), Some(0));
    queue.set_ready(true);
    // A header that the device reads (NEXT), and a block that it writes (WRITE): address, length, flags, next.
    let descriptor = |index: u64, address: u64, length: u32, flags: u16, next: u16| {
        let place = GuestAddress(DESCRIPTORS + 16 * index);
        memory.write_obj(address, place).expect("in memory");
        memory.write_obj(length, GuestAddress(place.0 + 8)).expect("in memory");
        memory.write_obj(flags, GuestAddress(place.0 + 12)).expect("in memory");
        memory.write_obj(next, GuestAddress(place.0 + 14)).expect("in memory");
    };
    descriptor(0, 0x8000, 16, 1, 1);
    descriptor(1, 0x9000, 512, 2, 0);
    let mut index: u16 = 0;
    group.bench_function("offer, take, give back", |bencher| {
        bencher.iter(|| {
            // The available ring's every entry is chain 0, as memory is zeroed; only its index moves on.
            index = index.wrapping_add(1);
            memory.write_obj(index, GuestAddress(AVAILABLE + 2)).expect("in memory");
            let chain = queue.pop_descriptor_chain(&memory).expect("a chain is there");
            let head = chain.head_index();
            black_box(chain.map(|descriptor| u64::from(descriptor.len())).sum::<u64>());
            queue.add_used(&memory, head, 512).expect("the used ring has room");
        });
    });
}
