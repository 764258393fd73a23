//! PID 1 inside the guest.
