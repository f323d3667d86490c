//! How many connections there may be, over all shards and per address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts of open connections and their limits (`max.connections`, `max.connections.per.ip`).
pub(crate) struct Admission {
    total_max: usize,
    per_ip_max: usize,
    per_ip_overrides: HashMap<IpAddr, usize>,
    total: AtomicUsize,
    /// Taken when a connection opens or closes, never while it is served.
    per_ip: Mutex<HashMap<IpAddr, usize>>,
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("max.connections ({0}) reached")]
    Total(usize),
    #[error("max.connections.per.ip ({0}) reached")]
    PerIp(usize),
}

/// A counted connection; the count goes down when this is dropped.
pub(crate) struct Admitted {
    admission: Arc<Admission>,
    ip: IpAddr,
}

impl Admission {
    pub(crate) fn new(
        total_max: usize,
        per_ip_max: usize,
        per_ip_overrides: HashMap<IpAddr, usize>,
    ) -> Admission {
        let per_ip_overrides =
            per_ip_overrides.into_iter().map(|(ip, max)| (ip.to_canonical(), max)).collect();
        let (total, per_ip) = (AtomicUsize::new(0), Mutex::default());
        Admission { total_max, per_ip_max, per_ip_overrides, total, per_ip }
    }

    /// Counts a connection from `ip`, if there is room for it. An IPv4 address counts as the same where it comes in IPv6's
    /// form, as on a listener of both.
    pub(crate) fn admit(self: &Arc<Admission>, ip: IpAddr) -> Result<Admitted, Refused> {
        let ip = ip.to_canonical();
        let mut per_ip = self.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
        if self.total.load(Ordering::Relaxed) >= self.total_max {
            return Err(Refused::Total(self.total_max));
        }
        let count = per_ip.entry(ip).or_insert(0);
        let count_max = self.per_ip_overrides.get(&ip).copied().unwrap_or(self.per_ip_max);
        if *count >= count_max {
            // A refused first connection (limit 0) leaves no entry behind.
            if *count == 0 {
                per_ip.remove(&ip);
            }
            return Err(Refused::PerIp(count_max));
        }
        *count += 1;
        self.total.fetch_add(1, Ordering::Relaxed);
        Ok(Admitted { admission: self.clone(), ip })
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut per_ip = self.admission.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
        self.admission.total.fetch_sub(1, Ordering::Relaxed);
        if let Some(count) = per_ip.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                per_ip.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_same_in_either_form() {
        let (four, six) = (IpAddr::from([10, 0, 0, 1]), "::ffff:10.0.0.1".parse().unwrap());
        let admission = Arc::new(Admission::new(9, 1, [(six, 2)].into()));
        let _held = [admission.admit(four).unwrap(), admission.admit(six).unwrap()];
        assert_eq!(admission.admit(four).err(), Some(Refused::PerIp(2)));
    }

    #[test]
    fn both_limits_hold_and_free_up() {
        let admission = Arc::new(Admission::new(3, 1, [(IpAddr::from([10, 0, 0, 1]), 2)].into()));
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = admission.admit(a).unwrap();
        let _second = admission.admit(a).unwrap();
        assert_eq!(admission.admit(a).err(), Some(Refused::PerIp(2)));
        let _third = admission.admit(b).unwrap();
        assert_eq!(admission.admit(IpAddr::from([10, 0, 0, 3])).err(), Some(Refused::Total(3)));
        drop(first);
        assert_eq!(admission.admit(b).err(), Some(Refused::PerIp(1)));
        assert!(admission.admit(a).is_ok());
        assert_eq!(admission.open(), 2);
    }
}
