//! Damaged frames, made from Apache Kafka's own requests of every API and version.

use std::fs;
use std::path::Path;

use oorandom::Rand32;
use penstock_protocol::ApiKey;

/// A valid request body.
struct Body {
    api: ApiKey,
    version: i16,
    bytes: Vec<u8>,
}

pub(crate) struct Mutants {
    /// Those of APIs that the broker serves come first.
    bodies: Vec<Body>,
    served: usize,
    random: Rand32,
}

/// What other programs say when they reach the wrong port.
const FOREIGN: [&[u8]; 5] = [
    b"GET / HTTP/1.1\r\nHost: example\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"SSH-2.0-OpenSSH_9.7\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
    b"\0\0\0\0",
];

impl Mutants {
    /// `served`: what the broker says that it serves; half of the frames are made of that.
    pub(crate) fn new(seed: u64, served: &[i16]) -> Mutants {
        let is_served = |body: &Body| served.contains(&body.api.code());
        let mut bodies = bodies();
        bodies.sort_by_key(|body| !is_served(body));
        let served = bodies.iter().filter(|body| is_served(body)).count();
        assert!(served > 0);
        Mutants { bodies, served, random: Rand32::new(seed) }
    }

    /// A random number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.random.rand_range(0..end as u32) as usize
    }

    /// What the next connection sends: whole frames, then one to three damaged ones. What follows a frame that makes no
    /// sense is not read, hence not more.
    pub(crate) fn burst(&mut self) -> (u64, u64) {
        let whole = [0, 0, 0, 0, 0, 1, 4, 16][self.below(8)];
        (whole, 1 + self.below(3) as u64)
    }

    /// A request as Apache Kafka sends it, with its length prefix; it does what it says.
    pub(crate) fn whole_frame(&mut self) -> Vec<u8> {
        let at = self.below(self.served);
        let Body { api, version, .. } = self.bodies[at];
        let mut frame = self.header(api.code(), version, api.request_header_version(version));
        frame.extend(&self.bodies[at].bytes);
        with_len(frame)
    }

    /// Room for the length prefix, and the header.
    fn header(&mut self, key: i16, version: i16, header_version: i16) -> Vec<u8> {
        let mut frame = vec![0; 4];
        frame.extend(key.to_be_bytes());
        frame.extend(version.to_be_bytes());
        frame.extend(self.random.rand_u32().to_be_bytes());
        frame.extend([0, 7]);
        frame.extend(b"hostile");
        frame.extend((header_version == 2).then_some(0));
        frame
    }

    /// A frame with its length prefix, damaged in one way or in several.
    pub(crate) fn damaged_frame(&mut self) -> Vec<u8> {
        let among = [self.served, self.bodies.len()][self.below(2)];
        let at = self.below(among);
        let Body { api, version, ref bytes } = self.bodies[at];
        let (mut key, mut version, mut body) = (api.code(), version, bytes.clone());
        match self.below(20) {
            0 => return FOREIGN[self.below(FOREIGN.len())].to_vec(),
            1 => version = self.random.rand_u32() as i16,
            2 => version = version.wrapping_add(self.below(5) as i16 - 2),
            3 => key = self.random.rand_u32() as i16,
            4 => key = self.below(100) as i16,
            _ => self.damage(&mut body),
        }
        let mut frame = self.header(key, version, api.request_header_version(version));
        frame.extend(body);
        if self.below(20) == 0 {
            let mut rest = frame.split_off(4);
            self.damage(&mut rest);
            frame.append(&mut rest);
        }
        let mut frame = with_len(frame);
        match self.below(100) {
            0 => frame[..4].copy_from_slice(&self.random.rand_u32().to_be_bytes()),
            1 => frame[3] = frame[3].wrapping_add(1 + self.below(9) as u8),
            2 => frame.truncate(4 + self.below(frame.len() - 3)),
            _ => (),
        }
        frame
    }

    /// Half of the time one value in place, which mostly still decodes and reaches what lies behind the decoder; else one to
    /// four changes of any kind.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        let (changes, kinds) = if self.below(2) == 0 { (1, 2) } else { (1 + self.below(4), 7) };
        for _ in 0..changes {
            let at = self.below(bytes.len() + 1);
            match self.below(kinds) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                2 => bytes.truncate(at),
                3 => bytes.insert(at, self.random.rand_u32() as u8),
                4 if at < bytes.len() => drop(bytes.remove(at)),
                5 if at + 4 <= bytes.len() => {
                    let number = i32::MAX >> self.below(31);
                    bytes[at..at + 4].copy_from_slice(&number.to_be_bytes());
                }
                6 => drop(bytes.splice(at..at, [0xff, 0xff, 0xff, 0xff, 0x0f])),
                _ => (),
            }
        }
    }
}

/// Fills in the length prefix.
fn with_len(mut frame: Vec<u8>) -> Vec<u8> {
    let len = frame.len() as u32 - 4;
    frame[..4].copy_from_slice(&len.to_be_bytes());
    frame
}

/// The request bodies among the protocol's test data: lines `VERSION NAME HEX[~HEX] VALUE` below the message's name.
fn bodies() -> Vec<Body> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../transport/protocol/tests/data");
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "vectors"));
    paths.sort();
    let mut bodies = Vec::new();
    for path in paths {
        let mut api = None;
        for line in fs::read_to_string(path).unwrap().lines() {
            let words: Vec<_> = line.split(' ').take(3).collect();
            match (&words[..], api) {
                ([name], _) => {
                    let name = name.strip_suffix("Request");
                    api = ApiKey::all().iter().find(|facts| Some(facts.name) == name).map(|facts| facts.key);
                }
                ([version, _, hex], Some(api)) => {
                    let hex = hex.split('~').next().unwrap();
                    bodies.push(Body { api, version: version.parse().unwrap(), bytes: from_hex(hex) });
                }
                _ => (),
            }
        }
    }
    let covered = |facts: &penstock_protocol::ApiFacts| {
        facts.versions.iter().all(|version| bodies.iter().any(|b| b.api == facts.key && b.version == version))
    };
    assert!(ApiKey::all().iter().all(covered), "every API and version is among them");
    bodies
}

fn from_hex(text: &str) -> Vec<u8> {
    if text == "-" {
        return Vec::new();
    }
    let digits: Vec<u8> = text.chars().map(|digit| digit.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
