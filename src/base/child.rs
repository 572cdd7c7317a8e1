//! Programs that are started, and must not outlive this one.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Makes a program end with this one, however that ends: the kernel kills it with the thread that started it
/// (`PR_SET_PDEATHSIG`, prctl(2)). So that thread must wait for it.
pub fn end_with_this_one(command: &mut Command) {
    let own = std::process::id();
    let bound = move || {
        // SAFETY: both calls take numbers alone, and may be made between fork and exec (signal-safety(7)).
        #[allow(unsafe_code)]
        let (bound, parent) = unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL), libc::getppid()) };
        if bound != 0 {
            return Err(std::io::Error::last_os_error());
        }
        // It may have ended just before.
        if u32::try_from(parent) != Ok(own) {
            return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: what runs in the child allocates nothing, takes no lock and touches no memory but its own.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(bound);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Stdio;

    #[test]
    fn a_program_ends_with_the_thread_that_started_it() {
        let started = std::thread::spawn(|| {
            let mut command = Command::new("cat");
            command.stdin(Stdio::piped()).stdout(Stdio::null());
            end_with_this_one(&mut command);
            command.spawn().unwrap()
        });
        let mut child = started.join().unwrap();
        // Its input stays open: nothing else ends it.
        let held = child.stdin.take();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        drop(held);
    }
}
