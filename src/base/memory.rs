//! How the allocator treats memory that is freed.

/// Buffers of this size and larger go back to the system when they are freed, in bytes.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 1 << 20;

/// mimalloc's setting: after how many milliseconds freed memory is given back (`mi_option_purge_delay` of its `mimalloc.h`, version 3).
#[cfg(target_env = "musl")]
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Makes the allocator give large buffers back. glibc raises its threshold for separate mappings with every large buffer
/// that is freed, and from then on keeps such buffers in one arena a thread, where nothing trims them: a daemon that
/// checks packs grew by tens of megabytes a check. A threshold that is set stays (`mallopt(3)`). Whoever reads or
/// writes many large buffers uses the same ones again. The static program's allocator would keep freed memory for a second, in
/// which a backup frees a hundred megabytes.
pub fn give_large_buffers_back() {
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code)]
    {
        // SAFETY: the call takes numbers, and touches nothing but the allocator's settings.
        let _ = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
    }
    #[cfg(target_env = "musl")]
    #[allow(unsafe_code)]
    {
        // SAFETY: the call takes numbers, and touches nothing but the allocator's settings.
        unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 0) };
    }
}

/// Gives back what lies free between the small things that are kept (`malloc_trim(3)`, `mi_collect`). Takes milliseconds: for the end of a
/// run in a process that goes on.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code)]
    {
        // SAFETY: the call takes a number, is safe beside other threads, and touches freed memory only.
        let _ = unsafe { libc::malloc_trim(0) };
    }
    #[cfg(target_env = "musl")]
    #[allow(unsafe_code)]
    {
        // SAFETY: the call is safe beside other threads, and touches freed memory only.
        unsafe { libmimalloc_sys::mi_collect(true) };
    }
}
