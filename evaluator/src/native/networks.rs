//! Source addresses: whether they cover the whole Internet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a list of sources says of the Internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage<'a> {
    /// Every public address of IPv4, or every one of IPv6, is among the sources.
    Whole,
    /// Some public addresses of either are not.
    Part,
    /// This source cannot be read, and without it the others cover a part only.
    Unclear(&'a str),
}

/// What one source stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Everyone,
    V4(Interval),
    V6(Interval),
    /// The name of a group of addresses, such as an Azure service tag: never everyone.
    Group,
}

/// Addresses as numbers, both ends included.
type Interval = (u128, u128);

const LAST_V4: u128 = u32::MAX as u128;
const LAST_V6: u128 = u128::MAX;

/// Says whether sources such as `0.0.0.0/1`, `10.0.0.1-10.0.0.9`, `*`, `Internet` or `VirtualNetwork` together cover
/// the whole Internet. Addresses that nobody has on the Internet (private, multicast, ...) need not be among them.
#[must_use]
pub fn coverage<'a>(sources: impl IntoIterator<Item = &'a str>) -> Coverage<'a> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    let mut unread = None;
    for source in sources {
        match parse(source) {
            Some(Source::Everyone) => return Coverage::Whole,
            Some(Source::V4(interval)) => v4.push(interval),
            Some(Source::V6(interval)) => v6.push(interval),
            Some(Source::Group) => {}
            None => unread = unread.or(Some(source)),
        }
    }
    v4.extend(NOT_PUBLIC_V4);
    v6.extend(NOT_PUBLIC_V6);
    if covers(v4, LAST_V4) || covers(v6, LAST_V6) {
        return Coverage::Whole;
    }
    unread.map_or(Coverage::Part, Coverage::Unclear)
}

/// What is not routed on the Internet: "this network", private, shared by carriers, loopback, link-local, multicast
/// and reserved.
const NOT_PUBLIC_V4: [Interval; 8] = [
    block([0, 0, 0, 0], 8),
    block([10, 0, 0, 0], 8),
    block([100, 64, 0, 0], 10),
    block([127, 0, 0, 0], 8),
    block([169, 254, 0, 0], 16),
    block([172, 16, 0, 0], 12),
    block([192, 168, 0, 0], 16),
    block([224, 0, 0, 0], 3),
];

/// All that is not in 2000::/3, of which alone public addresses are given out.
const NOT_PUBLIC_V6: [Interval; 2] = [(0, (0x2000 << 112) - 1), (0x4000 << 112, LAST_V6)];

const fn block(octets: [u8; 4], prefix: u32) -> Interval {
    let first = u32::from_be_bytes(octets);
    (first as u128, (first | (u32::MAX >> prefix)) as u128)
}

/// Whether the union of the intervals is all of `0..=last`.
fn covers(mut intervals: Vec<Interval>, last: u128) -> bool {
    intervals.sort_unstable();
    let mut next = 0; // the first address not yet seen
    for (first, end) in intervals {
        if first > next {
            return false;
        }
        if end >= last {
            return true;
        }
        next = next.max(end + 1);
    }
    false
}

/// Reads one source; `None` when it is neither an address, a network, a range nor a name.
fn parse(source: &str) -> Option<Source> {
    let source = source.trim();
    if is_everyone(source) {
        return Some(Source::Everyone);
    }
    if is_name(source) {
        return Some(Source::Group);
    }
    if let Some((address, prefix)) = source.split_once('/') {
        return network(address.parse().ok()?, digits(prefix)?);
    }
    let (first, last) = source.split_once('-').unwrap_or((source, source));
    range(first.trim().parse().ok()?, last.trim().parse().ok()?)
}

/// Words for everyone. The unspecified addresses are nobody's; a rule that names one means any address, and the CIS
/// benchmarks read it, and a bare `/0`, in the same way.
fn is_everyone(source: &str) -> bool {
    const WORDS: [&str; 7] = ["*", "0.0.0.0/0", "::/0", "internet", "any", "0.0.0.0", "::"];
    WORDS.iter().any(|word| source.eq_ignore_ascii_case(word)) || source == "/0"
}

fn is_name(source: &str) -> bool {
    // No address is like this: those of IPv6 have colons, and those of IPv4 begin with a digit.
    let mut bytes = source.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_'))
}

fn digits(text: &str) -> Option<u32> {
    let plain = (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// A network of CIDR. Bits of the host do not matter: `10.1.2.3/0` is everyone.
fn network(address: IpAddr, prefix: u32) -> Option<Source> {
    let host_bits = size(address).checked_sub(prefix)?;
    let hosts = 1_u128.checked_shl(host_bits).map_or(u128::MAX, |count| count - 1);
    let bits = bits(address);
    Some(interval(address, (bits & !hosts, bits | hosts)))
}

fn range(first: IpAddr, last: IpAddr) -> Option<Source> {
    let interval = interval(first, (bits(first), bits(last)));
    (first.is_ipv4() == last.is_ipv4() && first <= last).then_some(interval)
}

fn interval(family: IpAddr, interval: Interval) -> Source {
    if family.is_ipv4() { Source::V4(interval) } else { Source::V6(interval) }
}

fn size(address: IpAddr) -> u32 {
    if address.is_ipv4() { Ipv4Addr::BITS } else { Ipv6Addr::BITS }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator, the same numbers in every run.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % bound
        }
    }

    fn of<'a>(sources: &[&'a str]) -> Coverage<'a> {
        coverage(sources.iter().copied())
    }

    #[test]
    fn everyone() {
        let lists: [&[&str]; 21] = [
            &["0.0.0.0/0"],
            &["::/0"],
            &["*"],
            &["Internet"],
            &["internet"],
            &["INTERNET"],
            &["Any"],
            &["0.0.0.0"],
            &["/0"],
            &["10.1.2.3/0"],
            &["0.0.0.0/00"],
            &["2001:db8::1/0"],
            &[" 0.0.0.0/0 "],
            &["10.0.0.0/8", "Internet"],
            &["0.0.0.0/1", "128.0.0.0/1"],
            &["128.0.0.0/1", "x x", "0.0.0.0/1"],
            &["0.0.0.0-255.255.255.255"],
            &["0.0.0.0-127.255.255.255", "64.0.0.0/2", "128.0.0.0/1"],
            &["::/1", "8000::/1"],
            &["2000::/3"],
            &["::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
        ];
        for list in lists {
            assert_eq!(of(list), Coverage::Whole, "{list:?}");
        }
    }

    #[test]
    fn everyone_but_the_private_networks() {
        let around_private = [
            "1.0.0.0-9.255.255.255",
            "11.0.0.0-100.63.255.255",
            "100.128.0.0-126.255.255.255",
            "128.0.0.0-169.253.255.255",
            "169.255.0.0-172.15.255.255",
            "172.32.0.0-192.167.255.255",
            "192.169.0.0-223.255.255.255",
        ];
        assert_eq!(of(&around_private), Coverage::Whole);
        for left_out in 0..around_private.len() {
            let mut rest = around_private.to_vec();
            rest.remove(left_out);
            assert_eq!(of(&rest), Coverage::Part, "without {}", around_private[left_out]);
        }
    }

    #[test]
    fn not_everyone() {
        let lists: [&[&str]; 10] = [
            &[],
            &["0.0.0.0/1"],
            &["0.0.0.0/1", "128.0.0.0/2"],
            &["0.0.0.0/1", "8000::/1"],
            &["2000::/4"],
            &["0.0.0.0/32"],
            &["VirtualNetwork"],
            &["Sql.WestEurope", "AzureLoadBalancer"],
            &["10.0.0.0/8", "203.0.113.7"],
            &["0.0.0.0-223.255.255.254"],
        ];
        for list in lists {
            assert_eq!(of(list), Coverage::Part, "{list:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_unclear() {
        for source in [
            "",
            "/",
            "-",
            "0.0.0.0/33",
            "0.0.0.0/-1",
            "0.0.0.0/+0",
            "0.0.0.0/",
            "::/129",
            "::/4294967296",
            "256.0.0.0/0",
            "010.0.0.0/0",
            "0.0.0.0/0/0",
            "1.2.3.4-::1",
            "1.2.3.4-1.2.3.3",
            "fe80::1%eth0/0",
            "pl-68a54001",
            "٠.0.0.0/0",
            "any thing",
            "1.2.3",
        ] {
            assert_eq!(of(&["10.0.0.0/8", source]), Coverage::Unclear(source));
        }
    }

    #[test]
    fn a_union_is_as_by_looking_at_each_number() {
        let mut numbers = Numbers(7);
        let mut covered = 0;
        for _ in 0..20_000 {
            let intervals: Vec<Interval> = (0..numbers.below(6))
                .map(|_| (u128::from(numbers.below(16)), u128::from(numbers.below(12))))
                .map(|(first, more)| (first, (first + more).min(15)))
                .collect();
            let each = (0..=15).all(|n| intervals.iter().any(|(first, last)| (*first..=*last).contains(&n)));
            assert_eq!(covers(intervals.clone(), 15), each, "{intervals:?}");
            covered += u32::from(each);
        }
        assert!(covered > 500, "the generator seldom covers everything: {covered}");
    }

    #[test]
    fn networks_are_as_by_looking_at_each_first_octet() {
        let mut numbers = Numbers(11);
        let mut covered = 0;
        for _ in 0..5_000 {
            let networks: Vec<(u64, u64)> =
                (0..numbers.below(8)).map(|_| (numbers.below(256), 1 + numbers.below(4))).collect();
            let public = (1..224).filter(|octet| ![10, 127].contains(octet));
            let each =
                public.into_iter().all(|octet| networks.iter().any(|(n, prefix)| (octet ^ n) >> (8 - prefix) == 0));
            let v4: Vec<String> = networks.iter().map(|(n, prefix)| format!("{n}.0.0.0/{prefix}")).collect();
            let whole = coverage(v4.iter().map(String::as_str)) == Coverage::Whole;
            assert_eq!(whole, each, "{v4:?}");
            covered += u32::from(each);
        }
        assert!(covered > 100, "the generator seldom covers everything: {covered}");
    }

    #[test]
    fn networks_of_ipv6_are_as_by_looking_at_each_block() {
        let mut numbers = Numbers(13);
        let mut covered = 0;
        for _ in 0..5_000 {
            // The public 2000::/3 in 32 blocks of /8.
            let networks: Vec<(u64, u64)> =
                (0..numbers.below(8)).map(|_| (0x20 + numbers.below(32), 3 + numbers.below(3))).collect();
            let each =
                (0x20..0x40).all(|block| networks.iter().any(|(n, prefix)| (block ^ n) >> (8 - prefix) == 0_u64));
            let v6: Vec<String> = networks.iter().map(|(n, prefix)| format!("{:x}::/{prefix}", n << 8)).collect();
            assert_eq!(coverage(v6.iter().map(String::as_str)) == Coverage::Whole, each, "{v6:?}");
            covered += u32::from(each);
        }
        assert!(covered > 100, "the generator seldom covers everything: {covered}");
    }
}
