//! Archives for tests: well-formed ones from the `tar` crate, hostile ones byte by byte.

/// Writes headers exactly as told.
#[derive(Default)]
pub struct RawTar {
    pub bytes: Vec<u8>,
}

pub struct RawHeader {
    pub name: Vec<u8>,
    pub kind: u8,
    pub link: Vec<u8>,
    pub mode: u32,
    pub size: u64,
    pub magic: &'static [u8; 8],
    pub device: (u32, u32),
}

impl Default for RawHeader {
    fn default() -> Self {
        Self {
            name: Vec::new(),
            kind: b'0',
            link: Vec::new(),
            mode: 0o644,
            size: 0,
            magic: b"ustar\x0000",
            device: (0, 0),
        }
    }
}

impl RawHeader {
    pub fn block(&self) -> [u8; 512] {
        let mut block = [0; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.name[..self.name.len().min(100)]);
        put(100, format!("{:07o}", self.mode).as_bytes());
        put(108, b"0000000");
        put(116, b"0000000");
        put(124, format!("{:011o}", self.size).as_bytes());
        put(136, b"14000000000");
        put(148, b"        ");
        put(156, &[self.kind]);
        put(157, &self.link[..self.link.len().min(100)]);
        put(257, self.magic);
        put(329, format!("{:07o}", self.device.0).as_bytes());
        put(337, format!("{:07o}", self.device.1).as_bytes());
        seal(&mut block);
        block
    }
}

/// Computes a header's checksum.
pub fn seal(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

impl RawTar {
    pub fn raw(mut self, header: RawHeader, body: &[u8]) -> Self {
        self.bytes.extend(header.block());
        self.bytes.extend_from_slice(body);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str, body: &[u8]) -> Self {
        self.raw(RawHeader { name: name.into(), size: body.len() as u64, ..Default::default() }, body)
    }

    pub fn entry(self, kind: u8, name: &str, link: &str) -> Self {
        self.raw(RawHeader { kind, name: name.into(), link: link.into(), ..Default::default() }, &[])
    }

    pub fn dir(self, name: &str) -> Self {
        self.raw(RawHeader { kind: b'5', name: name.into(), mode: 0o755, ..Default::default() }, &[])
    }

    /// An extended header of that kind (`x` or `g`).
    pub fn pax(self, kind: u8, records: &[(&str, &[u8])]) -> Self {
        let body: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        self.raw(
            RawHeader { kind, name: b"pax".to_vec(), size: body.len() as u64, ..Default::default() },
            &body,
        )
    }

    pub fn end(mut self) -> Vec<u8> {
        self.bytes.extend([0; 1024]);
        self.bytes
    }
}

pub fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    gzip_at(bytes, 1)
}

/// As small as it gets: a thousandth, for zeros.
pub fn gzip_hard(bytes: &[u8]) -> Vec<u8> {
    gzip_at(bytes, 9)
}

fn gzip_at(bytes: &[u8], level: u32) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}
