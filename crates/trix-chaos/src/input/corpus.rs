//! Small clips of every container and codec that trix reads, made by Debian's ffmpeg.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use trix_testkit::clips;

/// A clip to be damaged.
#[derive(Clone, Debug)]
pub struct Clip {
    /// What is in it: `h264-aac.mp4`.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Name and arguments of every clip. All have at least a second, so that the planner lays a grid
/// over them, and are as small as their codec allows.
const RECIPES: &[(&str, &str)] = &[
    ("h264-aac.mp4", "V A -c:v libx264 -preset veryfast -bf 2 -g 8 -c:a aac"),
    ("h264-fragmented.mp4", "V A -c:v libx264 -g 8 -c:a aac -movflags frag_keyframe+empty_moov"),
    ("h264-faststart.mp4", "V -c:v libx264 -g 4 -movflags +faststart"),
    ("h264-interlaced.ts", "V A -c:v libx264 -flags +ildct+ilme -top 1 -c:a ac3 -b:a 64k"),
    ("h264-subtitled.mp4", "V A S -c:v libx264 -c:a aac -c:s mov_text"),
    ("h264-10bit.mkv", "V -c:v libx264 -pix_fmt yuv422p10le"),
    ("h264-ac3.ts", "V A -c:v libx264 -g 8 -c:a ac3 -b:a 64k"),
    ("h264.h264", "V -c:v libx264 -g 8"),
    ("h264-opus-srt.mkv", "V A S -c:v libx264 -g 8 -c:a libopus -b:a 32k -c:s srt"),
    ("h264-flac-ass.mkv", "V A S -c:v libx264 -c:a flac -c:s ass"),
    ("hevc-aac.mp4", "V A -c:v libx265 -x265-params log-level=0 -tag:v hvc1 -c:a aac"),
    ("hevc-10bit.mkv", "V -c:v libx265 -x265-params log-level=0 -pix_fmt yuv420p10le"),
    ("hevc.ts", "V A -c:v libx265 -x265-params log-level=0 -c:a libmp3lame"),
    ("hevc.hevc", "V -c:v libx265 -x265-params log-level=0"),
    ("mpeg2-mp2.ts", "V A -c:v mpeg2video -bf 2 -g 8 -c:a mp2"),
    ("mpeg2-interlaced.mpg", "V A -c:v mpeg2video -flags +ildct+ilme -c:a mp2"),
    ("mpeg2.mxf", "V A -c:v mpeg2video -g 8 -c:a pcm_s16le -ar 48000"),
    ("mpeg2.m2v", "V -c:v mpeg2video -g 8 -f mpeg2video"),
    ("prores-pcm.mov", "V A -c:v prores_ks -profile:v 0 -c:a pcm_s24le"),
    ("prores4444.mov", "V -c:v prores_ks -profile:v 4 -pix_fmt yuva444p10le"),
    ("ffv1-flac.mkv", "V A -c:v ffv1 -level 3 -g 1 -slices 4 -c:a flac"),
    ("ffv1-pcm.mov", "V A -c:v ffv1 -level 3 -c:a pcm_s16le"),
    ("dnxhd.mxf", "-f lavfi -i testsrc2=s=1280x720:r=25:d=0.2 -c:v dnxhd -b:v 90M"),
    ("mjpeg-pcm.avi", "V A -c:v mjpeg -c:a pcm_s16le"),
    ("mpeg4-mp3.avi", "V A -c:v mpeg4 -bf 1 -c:a libmp3lame"),
    ("mjpeg.mov", "V -c:v mjpeg"),
    ("jpeg2000.mov", "V -c:v jpeg2000 -frames:v 6"),
    ("raw.mov", "V -c:v rawvideo -pix_fmt uyvy422 -s 48x32"),
    ("vp9-opus.webm", "V A -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -c:a libopus -b:a 32k"),
    ("vp8.ivf", "V -c:v libvpx -deadline realtime -cpu-used 8"),
    ("theora.ogg", "V A -c:v libtheora -c:a libvorbis"),
    ("h264-aac.flv", "V A -c:v libx264 -c:a aac"),
    ("mpeg4-mp3.asf", "V A -c:v mpeg4 -c:a libmp3lame"),
    ("nut.nut", "V A -c:v mpeg4 -c:a flac"),
    ("dv.dv", "-f lavfi -i testsrc2=s=720x576:r=25:d=0.12 -c:v dvvideo -pix_fmt yuv420p"),
    ("sound.flac", "A -c:a flac"),
    ("sound.mp3", "A -c:a libmp3lame"),
    ("sound.wav", "A -c:a pcm_s24le"),
    ("sound.m4a", "A -c:a aac"),
    ("sound.eac3", "A -c:a eac3 -b:a 96k"),
];

const PICTURE: &str = "-f lavfi -i testsrc2=s=64x48:r=25:d=1";
const SOUND: &str = "-f lavfi -i sine=frequency=440:sample_rate=48000:duration=1";

/// Makes the clips in `folder`, or takes those that are there. `every` leaves out all but each
/// n-th one, for a run that has only seconds.
pub fn make(folder: &Path, every: usize) -> Result<Vec<Clip>> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let subtitle = folder.join("cues.srt");
    let cues = "1\n00:00:00,000 --> 00:00:00,500\nOne\n\n2\n00:00:00,600 --> 00:00:01,200\nTwo\n";
    fs::write(&subtitle, cues).context("writing the subtitle")?;
    RECIPES
        .iter()
        .step_by(every)
        .map(|(name, recipe)| {
            let path = folder.join(name);
            if !path.exists() {
                let subtitle = format!("-i {}", subtitle.display());
                let words: Vec<&str> = recipe
                    .split(' ')
                    .map(|word| match word {
                        "V" => PICTURE,
                        "A" => SOUND,
                        "S" => &subtitle,
                        word => word,
                    })
                    .collect();
                let draft = folder.join(format!("draft-{name}"));
                // Without the thread limit a machine of many cores writes other clips.
                clips::make(&draft, &format!("{} -threads 1 -bitexact", words.join(" ")));
                fs::rename(&draft, &path).context("naming a clip")?;
            }
            let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            Ok(Clip { name: (*name).to_owned(), bytes })
        })
        .collect()
}
