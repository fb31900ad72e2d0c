//! The little that is needed of NAL units: HEVC's HDR10 messages.
//!
//! x265 writes them only beside repeated parameter sets, but a file wants the
//! parameter sets once and the messages at every segment's start.

use trix_model::HdrMetadata;

/// ITU-T H.265, table 7-1: `PREFIX_SEI_NUT`.
const PREFIX_SEI: u8 = 39;
/// H.265, D.2.28.
const MASTERING_DISPLAY: u8 = 137;
/// H.265, D.2.35.
const CONTENT_LIGHT: u8 = 144;

/// The HDR10 messages as NAL units with three-byte start codes, light level
/// first like x265; empty when there is nothing to say.
pub fn hdr10_messages(hdr: &HdrMetadata) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(light) = hdr.content_light {
        let mut payload = Vec::with_capacity(4);
        payload.extend(light.max_content.to_be_bytes());
        payload.extend(light.max_frame_average.to_be_bytes());
        message(&mut out, CONTENT_LIGHT, &payload);
    }
    if let Some(display) = hdr.mastering_display {
        let mut payload = Vec::with_capacity(24);
        // H.265 counts green, blue, red.
        let [red, green, blue] = display.primaries;
        for [x, y] in [green, blue, red, display.white_point] {
            payload.extend(x.to_be_bytes());
            payload.extend(y.to_be_bytes());
        }
        payload.extend(display.max_luminance.to_be_bytes());
        payload.extend(display.min_luminance.to_be_bytes());
        message(&mut out, MASTERING_DISPLAY, &payload);
    }
    out
}

fn message(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    let size = u8::try_from(payload.len()).expect("an HDR10 message is at most 24 bytes");
    // Header: type, layer 0, temporal id 0 (coded plus 1).
    out.extend([0, 0, 1, PREFIX_SEI << 1, 1]);
    let mut zeros = 0;
    for byte in [kind, size].into_iter().chain(payload.iter().copied()).chain([0x80]) {
        // Two zeros and a byte up to 3 would look like a start code.
        if zeros >= 2 && byte <= 3 {
            out.push(3);
            zeros = 0;
        }
        out.push(byte);
        zeros = if byte == 0 { zeros + 1 } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trix_model::color::{ContentLight, MasteringDisplay};

    #[test]
    fn messages_stand_in_the_order_of_x265_and_hide_start_codes() {
        let hdr = HdrMetadata {
            mastering_display: Some(MasteringDisplay {
                primaries: [[34000, 16000], [13250, 34500], [7500, 3000]],
                white_point: [15635, 16450],
                max_luminance: 10_000_000,
                min_luminance: 1,
            }),
            content_light: Some(ContentLight { max_content: 1000, max_frame_average: 400 }),
        };
        let bytes = hdr10_messages(&hdr);
        assert_eq!(bytes[..12], [0, 0, 1, 0x4e, 1, 144, 4, 0x03, 0xe8, 0x01, 0x90, 0x80]);
        assert_eq!(bytes[12..19], [0, 0, 1, 0x4e, 1, 137, 24]);
        // 10000000 is 00 98 96 80 and 1 is 00 00 00 01 with an escape before its last byte.
        assert_eq!(bytes[bytes.len() - 10..], [0, 0x98, 0x96, 0x80, 0, 0, 3, 0, 1, 0x80]);
        assert!(hdr10_messages(&HdrMetadata::default()).is_empty());
    }
}
