//! How far a long operation has come: the library tells, the caller draws.

/// Listens to long operations. All are told in bytes; calls come from several threads.
pub trait Progress: Sync {
    /// A step begins: what it is, and how many bytes it will take if that is known. A step begun later by the same
    /// operation may run beside it.
    fn begin(&self, label: &str, total: Option<u64>) -> Box<dyn Step>;
}

/// One step under way; dropping it ends it.
pub trait Step: Send + Sync {
    /// So many more bytes are done.
    fn advance(&self, bytes: u64);
}

/// Nobody is watching.
impl Progress for () {
    fn begin(&self, _label: &str, _total: Option<u64>) -> Box<dyn Step> {
        Box::new(())
    }
}

impl Step for () {
    fn advance(&self, _bytes: u64) {}
}

/// Reads, and tells a step how much.
pub(crate) struct Watched<'a, R> {
    pub inner: R,
    pub step: &'a dyn Step,
}

impl<R: std::io::Read> std::io::Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.step.advance(read as u64);
        Ok(read)
    }
}
