//! Arguments and environment, read where the kernel laid them on the stack.

use core::ffi::{CStr, c_char};
use core::marker::PhantomData;

/// A pointer to a text ending in NUL, or the null pointer that ends a list: an element of `argv` as the kernel has it.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Pointer<'a>(*const c_char, PhantomData<&'a CStr>);

impl<'a> Pointer<'a> {
    /// The null pointer that ends a list.
    pub const END: Self = Self(core::ptr::null(), PhantomData);

    /// Points to this text.
    pub const fn new(text: &'a CStr) -> Self {
        Self(text.as_ptr(), PhantomData)
    }

    /// The text, or `None` for the end of a list.
    pub fn get(self) -> Option<&'a CStr> {
        // SAFETY: made from a CStr (or from the kernel's stack) that lives for 'a.
        (!self.is_end()).then(|| unsafe { CStr::from_ptr(self.0) })
    }

    /// Whether this is the end of a list.
    pub const fn is_end(self) -> bool {
        self.0.is_null()
    }
}

/// A program's arguments and environment.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    arguments: &'a [Pointer<'a>],
    environment: &'a [Pointer<'a>],
}

impl Args<'static> {
    /// Reads the stack as it is at a program's first instruction.
    ///
    /// # Safety
    /// `stack` must be the stack pointer with which the kernel entered the program: argc, the arguments, a null
    /// pointer, the environment, a null pointer (System V ABI, section 3.4.1), never written to afterwards.
    #[cfg(all(feature = "program", not(feature = "build")))]
    pub(crate) unsafe fn from_stack(stack: *const usize) -> Self {
        // SAFETY: the caller's promise gives the layout; Pointer is a transparent pointer, null where the kernel put null.
        unsafe {
            let argc = *stack;
            let arguments = stack.add(1).cast::<Pointer<'static>>();
            let environment = arguments.add(argc + 1);
            let mut count = 0;
            while !(*environment.add(count)).is_end() {
                count += 1;
            }
            Self {
                arguments: core::slice::from_raw_parts(arguments, argc),
                // With its end, so that it can be handed to execve as it is.
                environment: core::slice::from_raw_parts(environment, count + 1),
            }
        }
    }
}

impl<'a> Args<'a> {
    /// Arguments and environment made by hand. An end within the arguments is passed over.
    pub const fn new(arguments: &'a [Pointer<'a>], environment: &'a [Pointer<'a>]) -> Self {
        Self { arguments, environment }
    }

    /// How many arguments there are, the program's own name included.
    pub const fn len(&self) -> usize {
        self.arguments.len()
    }

    /// Whether there is not even a name (Linux before 5.18 allowed that).
    pub const fn is_empty(&self) -> bool {
        self.arguments.is_empty()
    }

    /// The argument of this number; 0 is the program's own name.
    pub fn get(&self, index: usize) -> Option<&'a CStr> {
        self.arguments.get(index)?.get()
    }

    /// All arguments, the program's own name first.
    pub fn iter(&self) -> impl Iterator<Item = &'a CStr> + use<'a> {
        self.arguments.iter().filter_map(|text| text.get())
    }

    /// These arguments without the first `count`.
    #[must_use]
    pub fn skip(&self, count: usize) -> Self {
        Self { arguments: self.arguments.get(count..).unwrap_or(&[]), environment: self.environment }
    }

    /// The environment as `execve(2)` wants it, its end included.
    pub const fn environment(&self) -> &'a [Pointer<'a>] {
        self.environment
    }

    /// The value of an environment variable.
    pub fn variable(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.environment.iter().filter_map(|text| text.get()).find_map(|entry| {
            let (key, value) = entry.to_bytes().split_at_checked(name.len())?;
            (key == name).then_some(value)?.strip_prefix(b"=")
        })
    }
}
