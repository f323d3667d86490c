//! What the operating system knows of this process and its children: cores, processor time, memory.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::Duration;

/// Pins the calling thread, and what it starts from now on, to one core.
pub(crate) fn pin_thread(core: usize) -> io::Result<()> {
    allow_cores(&[core])
}

/// The cores that the calling thread may run on.
pub(crate) fn allowed_cores() -> io::Result<Vec<usize>> {
    // SAFETY: a cpu_set_t is plain bits, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { zeroed() };
    // SAFETY: `set` is valid for writes of its own size.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: CPU_ISSET reads a bit of `set`; every index is below CPU_SETSIZE.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect())
}

/// Starts `command` pinned to `core` (none: wherever this thread may run).
pub(crate) fn spawn_pinned(command: &mut Command, core: Option<usize>) -> io::Result<Child> {
    end_with_this(command);
    let Some(core) = core else {
        return command.spawn();
    };
    // A child inherits the affinity of the thread that starts it.
    let before = allowed_cores()?;
    allow_cores(&[core])?;
    let child = command.spawn();
    allow_cores(&before)?;
    child
}

/// Has the kernel end the child when the thread that starts it ends, also where that one is killed: a measurement that is cut
/// off leaves nothing running.
fn end_with_this(command: &mut Command) {
    // SAFETY: between fork and exec only one system call is made, which touches no memory.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}

/// Processor time that this process has used so far, in user and kernel mode together.
pub(crate) fn own_cpu_time() -> Duration {
    // SAFETY: rusage is plain integers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { zeroed() };
    // SAFETY: `usage` is valid for writes.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    let micros =
        |time: libc::timeval| Duration::from_micros(time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64);
    micros(usage.ru_utime) + micros(usage.ru_stime)
}

/// Processor time that all threads of a process have used, in user and kernel mode together.
pub(crate) fn cpu_time_of(pid: u32) -> io::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Fields are counted from behind the command's name, which may hold anything.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    match (ticks(11), ticks(12)) {
        (Some(user), Some(system)) => {
            Ok(Duration::from_secs_f64((user + system) as f64 / ticks_per_second() as f64))
        }
        _ => Err(io::Error::other("processor times of the broker cannot be read")),
    }
}

/// Writes a file's dirty pages back and drops it from the page cache, so that what reads it next reads the device.
pub(crate) fn forget_pages(file: &File) -> io::Result<()> {
    file.sync_data()?;
    // SAFETY: the call has no memory effects; the descriptor is open for as long as `file` is borrowed.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Asks a child process to end in its own time.
pub(crate) fn terminate(child: &Child) -> io::Result<()> {
    // SAFETY: kill has no memory effects; the child has not been waited for, so the id is still its own.
    if unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Clock ticks in a second, the unit of processor times in /proc.
pub(crate) fn ticks_per_second() -> u64 {
    // SAFETY: sysconf has no memory effects.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).unwrap_or(100).max(1)
}

/// Lets the calling thread, and what it starts from now on, run on these cores.
pub(crate) fn allow_cores(cores: &[usize]) -> io::Result<()> {
    // SAFETY: a cpu_set_t is plain bits, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { zeroed() };
    for core in cores {
        if *core >= libc::CPU_SETSIZE as usize {
            return Err(io::Error::other(format!("core {core} is beyond what the kernel's set can name")));
        }
        // SAFETY: CPU_SET writes one bit of `set`; the index was checked.
        unsafe { libc::CPU_SET(*core, &mut set) };
    }
    // SAFETY: `set` is valid for reads of its own size.
    if unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
