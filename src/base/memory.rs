//! Memory that the allocator keeps, given back to the system.

/// Gives back what the allocator keeps of freed memory. glibc keeps one arena a thread with the largest buffers it has
/// ever held: a daemon that checks packs grew by tens of megabytes a check. A lower threshold for separate mappings
/// would hold it down too, but makes every large buffer of a run fresh, which cost a restore half its speed
/// (`malloc_trim(3)`). Does nothing with another C library; musl's gives large buffers back of itself.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code)]
    {
        // SAFETY: the call takes a number, is safe beside other threads, and touches freed memory only.
        let _ = unsafe { libc::malloc_trim(0) };
    }
}
