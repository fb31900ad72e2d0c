//! One range of bytes (RFC 9110, section 14).

use axum::http::{HeaderMap, header};

/// What a client wants of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it.
    All,
    /// A part; `length` is at least 1.
    Part {
        /// First byte.
        start: u64,
        /// Bytes.
        length: u64,
    },
    /// What is not there.
    Nothing,
}

/// Reads `Range` and `If-Range`. Several ranges, other units and nonsense are
/// ignored, as the specification allows: the client gets the whole.
pub fn wanted(headers: &HeaderMap, etag: &str, size: u64) -> Wanted {
    let Some(range) = headers.get(header::RANGE).and_then(|r| r.to_str().ok()) else {
        return Wanted::All;
    };
    // Part of another version of the file is of no use.
    if headers.get(header::IF_RANGE).is_some_and(|v| v.as_bytes() != etag.as_bytes()) {
        return Wanted::All;
    }
    let Some((from, to)) = range.strip_prefix("bytes=").and_then(|r| r.trim().split_once('-'))
    else {
        return Wanted::All;
    };
    let number = |s: &str| s.bytes().all(|b| b.is_ascii_digit()).then(|| s.parse::<u64>());
    match (from, to) {
        ("", suffix) => match number(suffix) {
            Some(Ok(0)) => Wanted::Nothing,
            Some(Ok(n)) if size > 0 => {
                let length = n.min(size);
                Wanted::Part { start: size - length, length }
            }
            Some(Ok(_)) => Wanted::Nothing,
            _ => Wanted::All,
        },
        (from, "") => match number(from) {
            Some(Ok(start)) if start < size => Wanted::Part { start, length: size - start },
            Some(Ok(_)) => Wanted::Nothing,
            _ => Wanted::All,
        },
        (from, to) => match (number(from), number(to)) {
            (Some(Ok(start)), Some(Ok(end))) if start <= end => {
                if start >= size {
                    return Wanted::Nothing;
                }
                Wanted::Part { start, length: end.min(size - 1) - start + 1 }
            }
            _ => Wanted::All,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_the_file() {
        let ask = |range: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, range.parse().unwrap());
            wanted(&headers, "\"e\"", 100)
        };
        assert_eq!(wanted(&HeaderMap::new(), "\"e\"", 100), Wanted::All);
        assert_eq!(ask("bytes=0-9"), Wanted::Part { start: 0, length: 10 });
        assert_eq!(ask("bytes=90-"), Wanted::Part { start: 90, length: 10 });
        assert_eq!(ask("bytes=-5"), Wanted::Part { start: 95, length: 5 });
        assert_eq!(ask("bytes=-500"), Wanted::Part { start: 0, length: 100 });
        assert_eq!(ask("bytes=50-500"), Wanted::Part { start: 50, length: 50 });
        assert_eq!(ask("bytes=100-"), Wanted::Nothing);
        assert_eq!(ask("bytes=-0"), Wanted::Nothing);
        for whole in ["bytes=9-0", "bytes=0-1,5-6", "frames=0-1", "bytes=+1-2", "bytes=x"] {
            assert_eq!(ask(whole), Wanted::All, "{whole}");
        }
    }

    #[test]
    fn a_part_of_another_version_is_not_sent() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, "bytes=0-9".parse().unwrap());
        headers.insert(header::IF_RANGE, "\"old\"".parse().unwrap());
        assert_eq!(wanted(&headers, "\"new\"", 100), Wanted::All);
    }
}
