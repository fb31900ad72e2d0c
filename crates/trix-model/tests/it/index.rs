//! Both indexes: what is written is read back, what is damaged is refused.

use proptest::prelude::*;
use trix_model::digest::Digest128;
use trix_model::index::{
    AccessGroup, AccessPoint, FrameSource, FrameTable, IndexError, PACKET_INDEX_VERSION,
    PACKET_KEY, PacketEntry, StreamIndex,
};
use trix_model::{Failure, PacketIndex, PlanningIndex, Rational};

/// A hash that is as hard to compress as a real one.
fn hash(seed: u64) -> Digest128 {
    let mut out = [0; 16];
    out.copy_from_slice(&blake3::hash(&seed.to_le_bytes()).as_bytes()[..16]);
    Digest128(out)
}

fn packet(n: usize, pts: i64, key: bool) -> PacketEntry {
    PacketEntry {
        pts: Some(pts),
        dts: Some(pts),
        duration: 1001,
        pos: 48 + n as i64 * 20_000,
        size: 20_000,
        flags: if key { PACKET_KEY } else { 0 },
        hash: hash(n as u64),
    }
}

/// A film of `frames` frames with a closed group every `gop` frames, and one sound track.
fn film(frames: usize, gop: usize) -> PacketIndex {
    let time_base = Rational::new(1, 24000).unwrap();
    let pts: Vec<i64> = (0..frames as i64).map(|n| 2002 + n * 1001).collect();
    let packets = pts.iter().enumerate().map(|(n, pts)| packet(n, *pts, n % gop == 0)).collect();
    let access = (0..frames)
        .step_by(gop)
        .map(|n| AccessPoint { frame: n as u32, packet: n as u32 })
        .collect();
    let end = 2002 + frames as i64 * 1001;
    let video = StreamIndex {
        stream: 0,
        time_base,
        parameters: hash(1 << 40),
        packets,
        frames: Some(FrameTable { source: FrameSource::Packets, pts, end, access }),
    };
    let audio = StreamIndex {
        stream: 1,
        time_base: Rational::new(1, 48000).unwrap(),
        parameters: hash(1 << 41),
        packets: (0..frames).map(|n| packet(n + (1 << 32), n as i64 * 1024, true)).collect(),
        frames: None,
    };
    PacketIndex { version: PACKET_INDEX_VERSION, streams: vec![video, audio] }
}

fn planning(index: &PacketIndex) -> PlanningIndex {
    PlanningIndex::from_index(index, Some(0)).unwrap()
}

#[test]
fn a_two_hour_film_takes_less_than_thirty_kilobytes_in_the_database() {
    // 23.976 frames a second with an access point every five seconds.
    let index = planning(&film(172_627, 120));
    assert_eq!(index.groups.len(), 1439);
    let bytes = index.to_bytes();
    assert!(bytes.len() < 30_000, "{} bytes", bytes.len());
    assert_eq!(PlanningIndex::from_bytes(&bytes).unwrap(), index);
}

#[test]
fn an_intra_only_film_has_every_frame_as_access_point_but_one_group_a_second() {
    let index = planning(&film(24_000, 1));
    assert_eq!(index.access.len(), 24_000);
    assert_eq!(index.preroll(12_345), 0);
    assert_eq!(index.groups.len(), 1000);
    assert!(index.groups.iter().all(|g| g.frame % 24 == 0), "groups begin at whole seconds");
    assert_eq!(PlanningIndex::from_base64(&index.to_base64()).unwrap(), index);
}

#[test]
fn decoding_reads_the_groups_from_the_access_point_to_the_last_frame() {
    let index = planning(&film(480, 48));
    let frames = |range| index.groups_for(range).iter().map(|g| g.frame).collect::<Vec<_>>();
    assert_eq!(frames(0..1), [0]);
    assert_eq!(frames(50..97), [48, 96]);
    assert_eq!(frames(96..144), [96]);
    assert_eq!(frames(479..480), [432]);
    assert_eq!(frames(10..10), [0u32; 0]);
}

#[test]
fn leading_pictures_belong_to_the_group_that_carries_them() {
    // Two frames before the second access point are coded behind it, as in an open GOP.
    let mut index = film(96, 48);
    let packets = &mut index.streams[0].packets;
    packets[46..49].rotate_right(1);
    let frames = index.streams[0].frames.as_mut().unwrap();
    frames.access[1] = AccessPoint { frame: 48, packet: 46 };
    let index = planning(&index);
    assert_eq!(index.groups[1], AccessGroup { frame: 48, lead: 2, hash: index.groups[1].hash });
    let frames = |range| index.groups_for(range).iter().map(|g| g.frame).collect::<Vec<_>>();
    assert_eq!(frames(0..46), [0]);
    assert_eq!(frames(0..47), [0, 48], "frame 46 lies in the second group");
    assert_eq!(frames(48..60), [48]);
}

#[test]
fn a_table_from_decoding_never_claims_less_than_is_read() {
    let mut index = film(96, 48);
    index.streams[0].frames.as_mut().unwrap().source = FrameSource::Decode;
    let index = planning(&index);
    let frames = |range| index.groups_for(range).iter().map(|g| g.frame).collect::<Vec<_>>();
    assert_eq!(frames(0..1), [0, 48]);
}

#[test]
fn one_changed_packet_changes_one_group_and_no_other() {
    let before = film(480, 48);
    for n in [0, 47, 48, 200, 479] {
        for change in [
            |p: &mut PacketEntry| p.hash = hash(99),
            |p: &mut PacketEntry| p.flags ^= 2,
            |p: &mut PacketEntry| p.dts = None,
        ] {
            let mut after = before.clone();
            change(&mut after.streams[0].packets[n]);
            let (a, b) = (planning(&before), planning(&after));
            let changed = a.groups.iter().zip(&b.groups).filter(|(a, b)| a.hash != b.hash);
            let changed: Vec<u32> = changed.map(|(a, _)| a.frame).collect();
            assert_eq!(changed, [(n / 48 * 48) as u32]);
            assert_eq!(a.audio, b.audio);
        }
    }
}

#[test]
fn where_packets_lie_in_the_file_changes_nothing() {
    let before = film(96, 48);
    let mut after = before.clone();
    after.streams.iter_mut().flat_map(|s| &mut s.packets).for_each(|p| p.pos += 512);
    assert_eq!(planning(&before), planning(&after));
}

#[test]
fn one_changed_sound_packet_changes_its_track_alone() {
    let before = film(96, 48);
    let mut after = before.clone();
    after.streams[1].packets[50].hash = hash(99);
    let (a, b) = (planning(&before), planning(&after));
    assert_eq!(a.groups, b.groups);
    assert_ne!(a.audio, b.audio);
}

#[test]
fn a_film_that_does_not_begin_with_an_access_point_is_decoded_from_the_file_s_start() {
    let mut index = film(96, 48);
    index.streams[0].frames.as_mut().unwrap().access.remove(0);
    let index = planning(&index);
    assert_eq!(index.access, [0, 48]);
    assert_eq!(index.access_for(20), 0);
    assert_eq!(index.groups.iter().map(|g| g.frame).collect::<Vec<_>>(), [0, 48]);
}

#[test]
fn a_source_without_pictures_has_its_sound_alone() {
    let mut index = film(96, 48);
    index.streams.remove(0);
    let planning = PlanningIndex::from_index(&index, None).unwrap();
    assert_eq!(planning.stream, None);
    assert_eq!(planning.audio.len(), 1);
    assert_eq!(PlanningIndex::from_bytes(&planning.to_bytes()).unwrap(), planning);
    assert_eq!(PlanningIndex::from_index(&index, Some(0)), Err(IndexError::NoFrames(0)));
    assert_eq!(PlanningIndex::from_index(&index, Some(1)), Err(IndexError::NoFrames(1)));
    assert_eq!(Failure::from(IndexError::NoFrames(1)).code, "no_frames");
    // A track without packets is no sound.
    index.streams[0].packets.clear();
    assert!(PlanningIndex::from_index(&index, None).unwrap().audio.is_empty());
}

#[test]
fn frames_are_found_by_their_time() {
    let index = film(96, 48);
    let table = index.streams[0].frames.as_ref().unwrap();
    assert_eq!(table.frame_at_pts(2002 + 1001), Some(1));
    assert_eq!(table.frame_at_pts(2003), None);
    assert_eq!(table.access_for(47).unwrap().packet, 0);
    assert_eq!(table.access_for(48).unwrap().packet, 48);
    assert_eq!(table.pts_of(96), Some(table.end));
    assert_eq!(table.pts_of(97), None);
    let planning = planning(&index);
    assert_eq!(planning.frame_at_pts(2002 + 95 * 1001), Some(95));
    assert_eq!(planning.preroll(95), 47);
}

#[test]
fn every_changed_bit_and_every_missing_byte_is_noticed() {
    let bytes = planning(&film(96, 48)).to_bytes();
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        assert!(PlanningIndex::from_bytes(&bad).is_err(), "byte {at}");
        assert!(PlanningIndex::from_bytes(&bytes[..at]).is_err(), "cut at {at}");
    }
    let packets = film(3, 2).to_bytes();
    for at in 0..packets.len() {
        let mut bad = packets.clone();
        bad[at] ^= 0x01;
        assert!(PacketIndex::from_bytes(&bad).is_err(), "byte {at}");
        assert!(PacketIndex::from_bytes(&packets[..at]).is_err(), "cut at {at}");
    }
    assert_eq!(PacketIndex::from_bytes(&bytes), Err(IndexError::Kind("packet index")));
    assert_eq!(PlanningIndex::from_base64("no base64!"), Err(IndexError::Base64("planning index")));
}

/// An index file with any content: right magic, right checksum, so that only the reader of the
/// content stands between it and the rest.
fn sealed(magic: &[u8; 4], raw: &[u8]) -> Vec<u8> {
    let mut out = magic.to_vec();
    out.push(1);
    out.extend(miniz_oxide::deflate::compress_to_vec_zlib(raw, 6));
    let sum = blake3::hash(&out);
    out.extend(sum.as_bytes());
    out
}

#[test]
fn a_bomb_and_a_huge_count_are_refused_before_memory_is_taken() {
    let zeros = vec![0u8; 33 << 20];
    let bomb = sealed(b"TXPL", &zeros);
    assert!(bomb.len() < 100_000);
    assert_eq!(
        PlanningIndex::from_bytes(&bomb),
        Err(IndexError::TooLarge { what: "planning index", limit: 32 << 20 })
    );
    // A count of streams of 2^62.
    let many = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40];
    let problem = "a count is larger than what follows";
    assert_eq!(
        PacketIndex::from_bytes(&sealed(b"TXPI", &many)),
        Err(IndexError::Content { what: "packet index", problem })
    );
    let mut newer = planning(&film(3, 2)).to_bytes();
    newer[4] = 2;
    assert_eq!(
        PlanningIndex::from_bytes(&newer),
        Err(IndexError::Version { what: "planning index", found: 2, known: 1 })
    );
}

fn any_hash() -> impl Strategy<Value = Digest128> {
    any::<[u8; 16]>().prop_map(Digest128)
}

fn any_packet() -> impl Strategy<Value = PacketEntry> {
    let times = (any::<Option<i64>>(), any::<Option<i64>>(), any::<i64>(), any::<i64>());
    (times, any::<u32>(), any::<u8>(), any_hash()).prop_map(
        |((pts, dts, duration, pos), size, flags, hash)| PacketEntry {
            pts,
            dts,
            duration,
            pos,
            size,
            flags,
            hash,
        },
    )
}

fn any_base() -> impl Strategy<Value = Rational> {
    (1..=i32::MAX as i64, 1..=i32::MAX as i64).prop_map(|(n, d)| Rational::new(n, d).unwrap())
}

prop_compose! {
    fn any_stream()(
        stream in any::<u32>(),
        time_base in any_base(),
        parameters in any_hash(),
        packets in prop::collection::vec(any_packet(), 1..40),
        pts in prop::collection::btree_set(any::<i64>(), 1..40),
        end in any::<i64>(),
        access in prop::collection::vec(any::<[prop::sample::Index; 2]>(), 0..10),
        source in prop::option::of(prop_oneof![Just(FrameSource::Packets), Just(FrameSource::Decode)]),
    ) -> StreamIndex {
        let pts: Vec<i64> = pts.into_iter().collect();
        let access = access.iter().map(|[f, p]| AccessPoint {
            frame: f.index(pts.len()) as u32,
            packet: p.index(packets.len()) as u32,
        });
        let access = access.collect();
        let frames = source.map(|source| FrameTable { source, pts, end, access });
        StreamIndex { stream, time_base, parameters, packets, frames }
    }
}

proptest! {
    #[test]
    fn any_packet_index_is_read_back_as_it_was(
        streams in prop::collection::vec(any_stream(), 0..4)
    ) {
        let index = PacketIndex { version: PACKET_INDEX_VERSION, streams };
        let bytes = index.to_bytes();
        prop_assert_eq!(&bytes, &index.to_bytes());
        prop_assert_eq!(PacketIndex::from_bytes(&bytes).unwrap(), index);
    }

    #[test]
    fn any_planning_index_is_read_back_as_it_was(
        steps in prop::collection::vec(1..i64::from(u32::MAX), 1..200),
        start in any::<i32>(),
        gop in 1usize..50,
        base in any_base(),
    ) {
        let mut at = i64::from(start);
        let mut pts: Vec<i64> = Vec::new();
        for step in &steps {
            pts.push(at);
            at += step;
        }
        let mut index = film(pts.len(), gop);
        index.streams[0].time_base = base;
        let frames = index.streams[0].frames.as_mut().unwrap();
        (frames.pts, frames.end) = (pts, at);
        let planning = planning(&index);
        prop_assert_eq!(PlanningIndex::from_base64(&planning.to_base64()).unwrap(), planning);
    }

    /// No content with a right checksum panics, and what is accepted is written as it was read.
    #[test]
    fn hostile_content_is_refused_or_harmless(
        noise in prop::collection::vec(any::<u8>(), 0..300),
        at in any::<prop::sample::Index>(),
        with in any::<u8>(),
    ) {
        for (magic, whole) in [(b"TXPI", film(6, 3).to_bytes()), (b"TXPL", planning(&film(60, 30)).to_bytes())] {
            let packed = &whole[5..whole.len() - 32];
            let mut raw = miniz_oxide::inflate::decompress_to_vec_zlib(packed).unwrap();
            let place = at.index(raw.len());
            raw[place] = with;
            for content in [&raw, &noise] {
                let bytes = sealed(magic, content);
                if let Ok(index) = PacketIndex::from_bytes(&bytes) {
                    prop_assert_eq!(PacketIndex::from_bytes(&index.to_bytes()).unwrap(), index.clone());
                    let video = index.streams.iter().find(|s| s.frames.is_some()).map(|s| s.stream);
                    if let Ok(planning) = PlanningIndex::from_index(&index, video) {
                        planning.groups_for(0..planning.frames());
                    }
                }
                if let Ok(index) = PlanningIndex::from_bytes(&bytes) {
                    index.groups_for(0..index.frames());
                    prop_assert_eq!(PlanningIndex::from_bytes(&index.to_bytes()).unwrap(), index);
                }
            }
        }
    }
}
