//! Digests and keys: 32 bytes that print as hexadecimal.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! hex_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(s: &str) -> Result<$name, String> {
                let mut out = [0u8; $len];
                if s.len() != 2 * $len || !s.is_ascii() {
                    return Err(format!("{s:?} is not {} hexadecimal digits", 2 * $len));
                }
                for (i, byte) in out.iter_mut().enumerate() {
                    *byte = u8::from_str_radix(&s[2 * i..2 * i + 2], 16)
                        .map_err(|_| format!("{s:?} is not hexadecimal"))?;
                }
                Ok($name(out))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<$name, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_bytes!(
    /// A 256-bit digest: BLAKE3 of an artifact, sha256 of a source.
    Digest,
    32
);
hex_bytes!(
    /// What an output is to be, before it is made: BLAKE3 over kind, version,
    /// canonical parameters, input digests and engine id.
    Key,
    32
);
hex_bytes!(
    /// A 128-bit value: md5, xxh3-128, a packet's hash.
    Digest128,
    16
);

/// All checksums that intake takes of a source in its one read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceHashes {
    /// sha256, the digest that names the source everywhere.
    pub sha256: Digest,
    /// md5, because rights-holders send it.
    pub md5: Digest128,
    /// xxh3-128, the fast one for re-checks.
    pub xxh3: Digest128,
    /// Bytes that were read.
    pub size: u64,
}
