//! Which process of this machine listens at an address, and on which cores it may run.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use crate::machine::cores_of_status;
use crate::machine::process::cpu_ticks;

/// The process that listens at this address, where it is one of this machine and visible to us.
pub fn listener(address: SocketAddr) -> Option<u32> {
    if !is_local(address) {
        return None;
    }
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let inodes: Vec<u64> = tables.iter().flat_map(|table| listening_inodes(table, address)).collect();
    let sockets: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    if sockets.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let holds = |pid: &u32| {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        let target = |entry: fs::DirEntry| fs::read_link(entry.path()).ok()?.to_str().map(str::to_owned);
        descriptors.flatten().filter_map(target).any(|target| sockets.contains(&target))
    };
    // A parent that has handed the socket down holds it too: the youngest serves.
    pids.filter(holds).max()
}

/// Whether an address is one of this machine.
pub fn is_local(address: SocketAddr) -> bool {
    address.ip().is_loopback() || std::net::UdpSocket::bind((address.ip(), 0)).is_ok()
}

/// Inodes of sockets that listen at an address, or at all addresses, by one of the kernel's tables.
fn listening_inodes(table: &str, address: SocketAddr) -> Vec<u64> {
    const LISTEN: &str = "0A";
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (host, port) = fields.get(1)?.split_once(':')?;
        let is_ours = u16::from_str_radix(port, 16).ok()? == address.port()
            && fields.get(3) == Some(&LISTEN)
            && (host.bytes().all(|digit| digit == b'0') || host == hexadecimal(address.ip()));
        if is_ours { fields.get(9)?.parse().ok() } else { None }
    };
    table.lines().skip(1).filter_map(inode).collect()
}

/// An address as the kernel's tables have it: words in the machine's order of octets.
fn hexadecimal(ip: IpAddr) -> String {
    let octets = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let word = |word: &[u8]| format!("{:08X}", u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    octets.chunks(4).map(word).collect()
}

/// Cores that a process works on: those of its threads that are kept to some of its cores, where it has such, and these have had
/// at least as much CPU time as the others; else those of all threads. (A thread that waits for signals may run anywhere, and takes
/// nobody's core away.) Empty where that is not known.
pub fn cores(pid: u32) -> Vec<usize> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let thread = |entry: fs::DirEntry| {
        let read = |name: &str| fs::read_to_string(entry.path().join(name)).ok();
        Some((cores_of_status(&read("status")?), cpu_ticks(&read("stat")?)?))
    };
    working_cores(threads.flatten().filter_map(thread).collect())
}

/// Of threads with their cores and CPU times.
fn working_cores(threads: Vec<(Vec<usize>, u64)>) -> Vec<usize> {
    let union = |threads: &[(Vec<usize>, u64)]| {
        let mut cores: Vec<usize> = threads.iter().flat_map(|(cores, _)| cores.iter().copied()).collect();
        cores.sort_unstable();
        cores.dedup();
        cores
    };
    let all = union(&threads);
    let (kept, free): (Vec<_>, Vec<_>) = threads.into_iter().partition(|(cores, _)| cores.len() < all.len());
    let ticks = |threads: &[(Vec<usize>, u64)]| threads.iter().map(|(_, ticks)| ticks).sum::<u64>();
    if kept.is_empty() || ticks(&free) > ticks(&kept) { all } else { union(&kept) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a broker that pins the threads that work is where these are, though others of it may run anywhere.
    #[test]
    fn where_a_process_works() {
        let check = |threads: &[(&[usize], u64)], expected: &[usize]| {
            let threads = threads.iter().map(|(cores, ticks)| (cores.to_vec(), *ticks)).collect();
            assert_eq!(working_cores(threads), expected);
        };
        check(&[(&[0, 1], 0), (&[0], 0), (&[0, 1], 0)], &[0]);
        check(&[(&[0, 1, 2], 3), (&[0], 90), (&[1], 80)], &[0, 1]);
        check(&[(&[0, 1, 2], 300), (&[0], 90), (&[1], 80)], &[0, 1, 2]);
        check(&[(&[0], 5), (&[0], 7)], &[0]);
        check(&[(&[0, 1], 5), (&[0, 1], 7)], &[0, 1]);
        check(&[(&[0], 5), (&[1], 7)], &[0, 1]);
        check(&[], &[]);
    }

    /// Goal: a listener of this very process is found; nobody is, where nobody listens.
    #[test]
    fn listeners_are_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = socket.local_addr().expect("it is bound");
        assert_eq!(listener(address), Some(std::process::id()));
        assert!(!cores(std::process::id()).is_empty());
        drop(socket);
        assert_eq!(listener(address), None);
    }
}
