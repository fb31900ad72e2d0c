//! A title goes all the way.

use std::path::Path;

use serde_json::{Value, json};
use trix_testkit::clips;

use super::rig::{Site, sum};

/// Types of the boxes at the top of an MP4, in order.
fn boxes(file: &Path) -> Vec<String> {
    let bytes = std::fs::read(file).unwrap();
    let mut all = Vec::new();
    let mut at = 0;
    while at + 8 <= bytes.len() {
        let size = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        all.push(String::from_utf8_lossy(&bytes[at + 4..at + 8]).into_owned());
        assert!(size >= 8, "{}: box at {at} has {size} bytes", file.display());
        at += size;
    }
    assert_eq!(at, bytes.len(), "{}: the boxes fill the file", file.display());
    all
}

/// The job that `trix ingest` says it made.
fn number_of(said: &[u8]) -> i64 {
    let said = String::from_utf8_lossy(said);
    let number = said.strip_prefix("job ").and_then(|rest| rest.split_whitespace().next());
    number.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("no job in: {said}"))
}

fn read_json(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

#[tokio::test]
async fn a_title_with_two_languages_and_a_sidecar_goes_all_the_way() {
    let site = Site::new();
    // 240 pictures at 23.976, large enough for two rungs of the shipped ladder.
    let source = clips::make(
        &site.share("incoming").join("First Light.mov"),
        "-f lavfi -i testsrc2=size=480x270:rate=24000/1001:duration=10.01 \
         -f lavfi -i sine=frequency=440:sample_rate=48000:duration=10.01 \
         -f lavfi -i sine=frequency=660:sample_rate=48000:duration=10.01 \
         -map 0:v -map 1:a -map 2:a -c:v libx264 -preset veryfast -pix_fmt yuv420p -g 48 \
         -c:a pcm_s16le -metadata:s:a:0 language=eng -metadata:s:a:1 language=rus \
         -color_primaries bt709 -color_trc bt709 -colorspace bt709",
    );
    let (md5, sha256) = (sum("md5sum", &source), sum("sha256sum", &source));
    let sidecar = site.share("incoming").join("First Light.mov.md5");
    std::fs::write(&sidecar, format!("{md5}  First Light.mov\n")).unwrap();

    let up = site.up().await;
    let path = source.to_str().unwrap();
    let out = site.run(&["ingest", "--wait", path], &[]);
    let said =
        format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{said}\n{}", up.tail());
    assert!(said.contains("succeeded"), "{said}");
    let first = site.succeeded(number_of(&out.stdout)).await;

    // What intake read is what other programs read.
    assert_eq!(first.0["checksums"]["md5"], md5);
    assert_eq!(first.0["checksums"]["sha256"], sha256);
    let count = clips::probe(&source, "v:0", "nb_read_frames");

    // The archive copy is the delivery, bit by bit, and its manifest proves it.
    let folder = site.share("archive").join("First Light/v1");
    assert_eq!(sum("sha256sum", &folder.join("source/First Light.mov")), sha256);
    let manifest = read_json(&folder.join("manifest.json"));
    let proof = &manifest["files"][0];
    assert_eq!(proof["sha256"], sha256);
    assert_eq!(proof["source"]["location"], "incoming:First Light.mov");
    let hashes = &proof["source"]["hashes"];
    assert_eq!((&hashes["sha256"], &hashes["md5"]), (&json!(sha256), &json!(md5)));
    assert_eq!(hashes["xxh3"].as_str().unwrap().len(), 32);
    assert_eq!(manifest["media"]["streams"].as_array().unwrap().len(), 3);

    // Renditions start at once, and have all pictures and all languages.
    for (name, size) in [("360p", "480,270"), ("234p", "416,234")] {
        let file = site.share("output").join(format!("First Light/v1/{name}.mp4"));
        let boxes = boxes(&file);
        let place = |kind: &str| boxes.iter().position(|b| b == kind).unwrap();
        assert!(place("moov") < place("mdat"), "{name}: {boxes:?}");
        assert_eq!(clips::probe(&file, "v:0", "nb_read_frames"), count, "{name}");
        assert_eq!(clips::probe(&file, "v:0", "width,height"), size, "{name}");
        assert_eq!(clips::frame_times_us(&file), clips::frame_times_us(&source), "{name}");
        for (stream, language) in [("a:0", "eng"), ("a:1", "rus")] {
            let said = clips::probe(&file, stream, "codec_name:stream_tags=language");
            assert_eq!(said, format!("aac,{language}"), "{name} {stream}");
        }
    }

    // The preview can be looked at.
    let preview = site.share("preview").join("First Light/v1");
    let poster = clips::probe(&preview.join("poster.jpg"), "v:0", "codec_name");
    assert_eq!(poster, "mjpeg");
    assert_eq!(clips::probe(&preview.join("sprite.jpg"), "v:0", "codec_name"), "mjpeg");
    let cues = std::fs::read_to_string(preview.join("sprite.vtt")).unwrap();
    assert!(cues.starts_with("WEBVTT") && cues.contains("sprite.jpg#xywh="), "{cues}");
    assert_eq!(clips::probe(&preview.join("proxy.mp4"), "v:0", "nb_read_frames"), count);

    // Nothing else is visible anywhere, and no stage is left.
    let manifest_of = |role: &str| {
        let p = first.publication(role);
        assert_eq!((&p["state"], &p["version"]), (&json!("published"), &json!(1)));
        let mut names: Vec<String> = p["files"]
            .as_array()
            .unwrap()
            .iter()
            .map(|f| format!("First Light/v1/{}", f["name"].as_str().unwrap()))
            .collect();
        names.push("First Light/v1/manifest.json".into());
        names.sort();
        names
    };
    for share in ["archive", "output", "preview"] {
        assert_eq!(site.visible(share), manifest_of(share), "on {share}");
    }
    assert_eq!(site.visible("incoming"), ["First Light.mov", "First Light.mov.md5"]);
    assert_eq!(sum("sha256sum", &source), sha256);
    site.no_debris().await;

    // The second time nothing is encoded, and what stands stays as it is.
    let shares = ["archive", "output", "preview"];
    let before: Vec<_> = shares.iter().map(|s| super::rig::sums(&site.share(s), "")).collect();
    let out = site.run(&["ingest", "--wait", path], &[]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let second = site.succeeded(number_of(&out.stdout)).await;
    for task in second.tasks() {
        let kind = task["kind"].as_str().unwrap();
        let idle = task["cached"] == true || task["state"] == "skipped";
        assert!(idle || matches!(kind, "copy" | "publish"), "{}", second.text());
    }
    for (share, before) in shares.iter().zip(before) {
        let now = super::rig::sums(&site.share(share), "");
        for (name, sum) in before {
            assert_eq!(now.get(&name), Some(&sum), "{name} on {share} stays");
        }
    }
    // Equal files are the version that stands already: none is made beside it.
    for role in ["archive", "output", "preview"] {
        let p = second.publication(role);
        assert_eq!((&p["version"], &p["current"]), (&json!(1), &json!(true)), "{role}");
    }
    for share in shares {
        assert_eq!(site.visible(share), manifest_of(share), "on {share}");
    }
    site.no_debris().await;
}
