//! Which process of this machine listens at an address, and on which cores it may run.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use crate::machine::cores_of_status;

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

/// Cores that a process may run on: those of all of its threads. Empty where that is not known.
pub fn cores(pid: u32) -> Vec<usize> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let status = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("status")).ok();
    let mut cores: Vec<usize> = threads.flatten().filter_map(status).flat_map(|text| cores_of_status(&text)).collect();
    cores.sort_unstable();
    cores.dedup();
    cores
}

#[cfg(test)]
mod tests {
    use super::*;

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
