import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { Schemas } from "../../src/api/client";
import { playables } from "../../src/pages/job/Result";
import { streamWords } from "../../src/pages/job/Source";
import { stageState, stageTook } from "../../src/pages/job/Stages";
import { nameIn } from "../../src/pages/Profiles";
import { adviceFor, codeWord, sentence } from "../../src/words";

const failed = (more: Partial<Schemas["Failed"]>): Schemas["Failed"] => ({
  class: "deterministic",
  origin: "source",
  code: "never_heard_of",
  message: "",
  ...more,
});

describe("failures in words", () => {
  it("says what to do for every class and origin, also when the code is new", () => {
    const known = failed({ code: "not_media" });
    expect(adviceFor(known)).toMatch(/no media file/);
    for (const origin of ["source", "request", "node", "share", "engine", "bug"] as const) {
      expect(adviceFor(failed({ origin }))).toMatch(/\.$/);
    }
    expect(adviceFor(failed({ class: "transient", origin: "node" }))).toMatch(/by itself/);
    expect(adviceFor(failed({ class: "resource", origin: "node" }))).toMatch(/memory or space/);
  });

  it("makes sentences of the server's words", () => {
    expect(sentence("opening the source: no demuxer knows this file")).toBe(
      "Opening the source: no demuxer knows this file.",
    );
    expect(sentence("Done!")).toBe("Done!");
    expect(codeWord("checksum_match")).toBe("Checksum match");
  });
});

const task = (
  state: Schemas["TaskState"],
  more: Partial<Schemas["Task"]> = {},
): Schemas["Task"] => ({
  id: 1,
  name: "encode/0000",
  kind: "encode_chunk",
  state,
  needs: [],
  epoch: 1,
  cached: false,
  roll_forward: false,
  estimate_ms: 1,
  ...more,
});

describe("a stage", () => {
  it("is what its worst task is", () => {
    expect(stageState([task("done"), task("quarantined"), task("running")]).tone).toBe("bad");
    expect(stageState([task("done"), task("running")])).toEqual({ tone: "busy", words: "1 of 2" });
    expect(stageState([task("done"), task("skipped")])).toEqual({ tone: "good", words: "done" });
    expect(stageState([task("ready"), task("waiting")]).words).toBe("ready");
    expect(stageState([task("done"), task("cancelled")]).words).toBe("cancelled");
  });

  it("took from its first start to its last end", () => {
    const at = (s: number) => new Date(s * 1000).toISOString();
    const tasks = [
      task("done", { started_at: at(10), ended_at: at(20) }),
      task("done", { started_at: at(12), ended_at: at(31) }),
    ];
    expect(stageTook(tasks)).toBe(21_000);
    expect(stageTook([task("done")])).toBeUndefined();
  });
});

describe("what was delivered and made", () => {
  it("describes a video stream as people say it", () => {
    const words = streamWords({
      index: 0,
      codec: "prores",
      default: true,
      kind: "video",
      video: {
        width: 1920,
        height: 1080,
        pixel_format: "yuv422p10le",
        depth: 10,
        sample_aspect: "1/1",
        frame_rate: "24000/1001",
        primaries: 9,
        transfer: 16,
        full_range: false,
        hdr10: true,
        fields: "progressive",
        rotation: 0,
      },
    });
    expect(words).toBe(
      "1920×1080 · 23.976 fps · yuv422p10le, 10 bit · progressive · BT.2020, PQ, limited range · HDR10",
    );
  });

  it("plays the preview first, and nothing that is not published", () => {
    const file = (name: string, mime = "video/mp4") => ({
      name,
      mime,
      size: 1,
      sha256: "",
      location: "",
      url: `/f/${name}`,
    });
    const publication = (
      role: string,
      state: Schemas["PublicationState"],
      ...files: ReturnType<typeof file>[]
    ) => ({ id: 1, role, share: role, target: "t", version: 1, state, current: true, files });
    const names = playables([
      publication("archive", "published", file("source/film.mov", "video/quicktime")),
      publication("output", "published", file("1080p.mp4"), file("manifest.json", "text/json")),
      publication("output", "moving", file("720p.mp4")),
      publication("preview", "published", file("proxy.mp4"), file("poster.jpg", "image/jpeg")),
    ]).map((p) => p.name);
    expect(names).toEqual(["Preview", "1080p"]);
  });
});

describe("a profile's text", () => {
  it("gives itself a name", () => {
    expect(nameIn('v = 1\nname = "mine" # a-z\n[[rendition]]\nname = "1080p"')).toBe("mine");
    expect(nameIn("v = 1")).toBeUndefined();
  });
});

describe("the stylesheet", () => {
  it("has both schemes' colours for every tone", () => {
    const css = readFileSync(join(import.meta.dirname, "../../src/app.css"), "utf8");
    for (const tone of ["idle", "busy", "look", "good", "warn", "bad", "odd", "mute"]) {
      for (const part of ["", "-bg", "-fg"]) {
        expect(css.split(`--tone-${tone}${part}:`)).toHaveLength(3);
      }
    }
  });
});
