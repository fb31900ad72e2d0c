// Made-up states of the service, as its API would tell them. For pictures only.

import type { Schemas } from "../../src/api/client";

type Job = Schemas["Job"];
type Task = Schemas["Task"];
type TaskState = Schemas["TaskState"];

export const NOW = Date.now();
export const ago = (seconds: number): string => new Date(NOW - seconds * 1000).toISOString();

const counts = (total: number, done: number, running = 0, failed = 0, cached = 0) => ({
  total,
  done,
  running,
  failed,
  cached,
  ready: Math.max(0, Math.min(3, total - done - running - failed)),
  waiting: Math.max(0, total - done - running - failed - 3),
  cancelled: 0,
});

function job(id: number, title: string, state: Job["state"], more: Partial<Job> = {}): Job {
  return {
    id,
    title,
    source: `incoming:2026-11/${title.toLowerCase().replaceAll(" ", "-")}.mov`,
    profile: "archive-and-ladder",
    state,
    band: 5,
    submitted_by: "olga",
    created_at: ago(3000 - id * 20),
    started_at: ago(2900 - id * 20),
    ended_at: null,
    engine: "e4b1",
    tasks: counts(39, 39),
    fraction: 1,
    planned: true,
    failure: null,
    poster_url: null,
    ...more,
  };
}

const failure: Schemas["Failed"] = {
  class: "deterministic",
  origin: "source",
  code: "not_media",
  message: "opening the source: no demuxer knows this file",
  object: "incoming:2026-11/readme.mov",
};

export const JOBS: Job[] = [
  job(42, "First Light", "running", {
    tasks: counts(39, 17, 4, 0, 6),
    fraction: 0.437,
    created_at: ago(190),
    started_at: ago(186),
  }),
  job(41, "Nordwand, Folge 3: Der lange Weg zurück ins Tal", "inspecting", {
    tasks: counts(1, 0, 1),
    fraction: 0.62,
    planned: false,
    created_at: ago(64),
    started_at: ago(60),
    submitted_by: "delivery-bot",
  }),
  job(40, "Сказка о потерянном времени", "accepted", {
    tasks: counts(1, 0),
    fraction: 0,
    planned: false,
    created_at: ago(40),
    started_at: null,
    profile: "hevc-10",
  }),
  job(39, "readme", "failed", {
    failure,
    tasks: counts(1, 0, 0, 1),
    fraction: 0,
    planned: false,
    created_at: ago(700),
    ended_at: ago(650),
    started_at: ago(660),
  }),
  job(38, "Late Show 2214", "succeeded", {
    created_at: ago(5400),
    started_at: ago(5390),
    ended_at: ago(4270),
    poster_url: "/api/v1/publications/3/files/poster.jpg",
  }),
  job(37, "Harbour Dawn", "cancelling", {
    tasks: counts(30, 12, 2),
    fraction: 0.4,
    created_at: ago(900),
  }),
  job(36, "Test Reel B", "cancelled", {
    tasks: counts(22, 4),
    fraction: 0.2,
    ended_at: ago(8000),
    created_at: ago(9000),
    started_at: ago(8900),
  }),
  job(35, "Grand Prix Highlights", "paused", {
    tasks: counts(61, 20),
    fraction: 0.31,
    created_at: ago(12000),
    started_at: ago(11900),
  }),
  job(34, "The Orchard", "waiting_gate", {
    tasks: counts(41, 5),
    fraction: 0.12,
    created_at: ago(14000),
    started_at: ago(13900),
  }),
  ...[
    "Quiet Streets",
    "Moor",
    "A Winter's Tale",
    "Interview Raw 7",
    "Trailer EN",
    "Trailer DE",
    "Late Show 2213",
    "Late Show 2212",
  ].map((title, n) =>
    job(33 - n, title, "succeeded", {
      tasks: counts(39 + n, 39 + n, 0, 0, n * 7),
      created_at: ago(20000 + n * 9000),
      started_at: ago(19990 + n * 9000),
      ended_at: ago(18900 + n * 8800),
      profile: n % 3 ? "archive-and-ladder" : "ladder-veryfast",
    }),
  ),
];

export const COUNTS = {
  running: 1,
  inspecting: 1,
  accepted: 1,
  failed: 1,
  succeeded: 9,
  cancelling: 1,
  cancelled: 1,
  paused: 1,
  waiting_gate: 1,
};

let next = 100;
function task(name: string, kind: string, state: TaskState, more: Partial<Task> = {}): Task {
  const begun = state !== "waiting" && state !== "ready" && !more.cached;
  next += 1;
  return {
    id: next,
    name,
    kind,
    state,
    needs: [],
    epoch: begun ? 1 : 0,
    cached: false,
    roll_forward: false,
    estimate_ms: 24_000,
    progress: null,
    waits_for:
      state === "ready"
        ? "waits for a free core on a node with the engine"
        : state === "waiting"
          ? "needs tasks that are not done"
          : null,
    failure: null,
    node: begun ? "ingest-1" : null,
    started_at: begun ? ago(170 - (next % 40)) : null,
    ended_at: state === "done" ? ago(140 - (next % 40)) : null,
    ...more,
  };
}

const CHUNKS = 24;
const RUNGS = ["1080p", "720p", "540p", "360p", "234p"];

function tasksOf(stand: "running" | "done" | "crash"): Task[] {
  next = 100;
  const done = stand === "done";
  const chunks = Array.from({ length: CHUNKS }, (_, n) => {
    const state: TaskState =
      done || n < 11 ? "done" : n < 15 ? "running" : n < 17 ? "ready" : "waiting";
    return task(
      `encode/${String(n).padStart(4, "0")}`,
      "encode_chunk",
      stand === "crash" && n === 12 ? "quarantined" : state,
      {
        needs: ["intake"],
        cached: n < 6,
        ...(n < 6 ? { epoch: 0, node: null, started_at: null } : {}),
        ...(n === 9 ? { epoch: 3 } : {}),
        progress:
          state === "running"
            ? { phase: "encode", done: 240 * (n - 10) * 0.21, total: 240, frames: 500 }
            : null,
        ...(stand === "crash" && n === 12
          ? {
              epoch: 2,
              failure: {
                class: "crash",
                origin: "engine",
                code: "slot_signal",
                message: "the slot ended by signal 11 at frame 212 while decoding",
                object: "encode/0012",
              },
            }
          : {}),
      },
    );
  });
  const rest: TaskState = done ? "done" : "waiting";
  return [
    task("intake", "intake", "done", { estimate_ms: 9000 }),
    ...chunks,
    task("audio/1", "encode_audio", "done", { needs: ["intake"] }),
    task("audio/2", "encode_audio", done ? "done" : "running", {
      needs: ["intake"],
      progress: done ? null : { phase: "encode", done: 60, total: 100, frames: 0 },
    }),
    task("stills", "stills", done ? "done" : "ready", { needs: ["intake"] }),
    ...RUNGS.map((r) =>
      task(`mux/${r}`, "mux", rest, {
        needs: [...chunks.map((c) => c.name), "audio/1", "audio/2"],
        estimate_ms: 1500,
      }),
    ),
    ...RUNGS.map((r) => task(`verify/${r}`, "verify", rest, { needs: [`mux/${r}`] })),
    task("publish/archive", "publish", rest, { needs: ["intake"] }),
    task("publish/output", "publish", rest, { needs: RUNGS.map((r) => `verify/${r}`) }),
    task("publish/preview", "publish", rest, { needs: ["stills"] }),
  ];
}

function attemptsOf(tasks: Task[]): Schemas["Attempt"][] {
  return tasks.flatMap((t) =>
    Array.from({ length: t.epoch }, (_, n): Schemas["Attempt"] => {
      const last = n + 1 === t.epoch;
      return {
        task: t.id,
        name: t.name,
        epoch: n + 1,
        state: last
          ? t.state === "running"
            ? "running"
            : t.state === "done"
              ? "succeeded"
              : "failed"
          : n === 0
            ? "lost"
            : "failed",
        node: last ? "ingest-1" : "ingest-2",
        worker: last ? 7 : 5,
        started_at: ago(170 - n * 30),
        ended_at: last && t.state === "running" ? null : ago(150 - n * 30),
        failure: last
          ? (t.failure ?? null)
          : {
              class: "transient",
              origin: "node",
              code: "worker_lost",
              message: "the worker was silent past its deadline",
              object: null,
            },
        result_lost: false,
        progress: t.progress,
        usage:
          last && t.state !== "running"
            ? {
                cpu_ms: 22_140,
                wall_ms: 22_600,
                max_rss: 412_000_000,
                read: 81_000_000,
                written: 14_200_000,
              }
            : null,
      };
    }),
  );
}

const MEDIA: Schemas["Media"] = {
  container: "mov",
  size: 8_412_339_127,
  duration_us: 1_422_500_000,
  streams: [
    {
      index: 0,
      codec: "prores",
      profile: "HQ",
      language: null,
      title: null,
      default: true,
      bit_rate: 184_000_000,
      audio: null,
      kind: "video",
      video: {
        width: 1920,
        height: 1080,
        pixel_format: "yuv422p10le",
        depth: 10,
        sample_aspect: "1/1",
        frame_rate: "24000/1001",
        primaries: 1,
        transfer: 1,
        matrix: 1,
        full_range: false,
        hdr10: false,
        dolby_vision: null,
        fields: "progressive",
        rotation: 0,
      },
    },
    {
      index: 1,
      codec: "pcm_s24le",
      profile: null,
      language: "eng",
      title: "English",
      default: true,
      bit_rate: 2_304_000,
      video: null,
      audio: { sample_rate: 48_000, channels: 2, layout: "stereo", depth: 24 },
      kind: "audio",
    },
    {
      index: 2,
      codec: "pcm_s24le",
      profile: null,
      language: "rus",
      title: "Русский",
      default: false,
      bit_rate: 6_912_000,
      video: null,
      audio: { sample_rate: 48_000, channels: 6, layout: "5.1(side)", depth: 24 },
      kind: "audio",
    },
  ],
};

const HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

const file = (
  id: number,
  name: string,
  size: number,
  mime: string,
  share: string,
): Schemas["PublishedFile"] => ({
  name,
  size,
  mime,
  sha256: HASH,
  location: `${share}:Late Show 2214/v1/${name}`,
  url: `/api/v1/publications/${id}/files/${encodeURIComponent(name)}`,
});

const PUBLICATIONS: Schemas["Publication"][] = [
  {
    id: 1,
    role: "archive",
    share: "archive",
    target: "Late Show 2214",
    version: 1,
    state: "published",
    current: true,
    published_at: ago(4300),
    files: [
      file(1, "source/late-show-2214.mov", 8_412_339_127, "video/quicktime", "archive"),
      file(1, "manifest.json", 1460, "application/json", "archive"),
    ],
  },
  {
    id: 2,
    role: "output",
    share: "output",
    target: "Late Show 2214",
    version: 1,
    state: "published",
    current: true,
    published_at: ago(4290),
    files: [
      ...RUNGS.map((r, n) => file(2, `${r}.mp4`, 620_000_000 / (n + 1), "video/mp4", "output")),
      file(2, "manifest.json", 3280, "application/json", "output"),
    ],
  },
  {
    id: 3,
    role: "preview",
    share: "preview",
    target: "Late Show 2214",
    version: 1,
    state: "published",
    current: true,
    published_at: ago(4280),
    files: [
      file(3, "proxy.mp4", 21_000_000, "video/mp4", "preview"),
      file(3, "poster.jpg", 88_000, "image/jpeg", "preview"),
      file(3, "sprite.jpg", 640_000, "image/jpeg", "preview"),
      file(3, "sprite.vtt", 2400, "text/vtt", "preview"),
    ],
  },
];

const FINDINGS: Schemas["Finding"][] = [
  {
    task: "intake",
    code: "checksum_match",
    severity: "info",
    message: "the source is what late-show-2214.mov.md5 says",
    stream: null,
    first_frame: null,
    last_frame: null,
    measured: null,
    allowed: null,
  },
  {
    task: "intake",
    code: "frames_missing",
    severity: "warning",
    message: "2 frames are missing between two others",
    stream: 0,
    first_frame: 1204,
    last_frame: 1205,
    measured: "125 ms",
    allowed: "41.7 ms",
  },
];

const detail = (
  id: number,
  tasks: Task[],
  more: Partial<Schemas["JobDetail"]>,
): Schemas["JobDetail"] => ({
  job: JOBS.find((j) => j.id === id)!,
  tasks,
  attempts: attemptsOf(tasks),
  findings: [],
  media: MEDIA,
  checksums: {
    sha256: HASH,
    md5: "d41d8cd98f00b204e9800998ecf8427e",
    xxh3: "99aa06d3014798d86001c324468d497f",
    size: MEDIA.size,
  },
  publications: [],
  seq: 900,
  ...more,
});

const failedIntake = (() => {
  next = 300;
  return [task("intake", "intake", "failed", { failure })];
})();

export const DETAILS: Record<number, Schemas["JobDetail"]> = {
  42: detail(42, tasksOf("running"), { findings: FINDINGS.slice(0, 1) }),
  41: detail(
    41,
    [
      task("intake", "intake", "running", {
        progress: { phase: "read", done: 62, total: 100, frames: 0 },
      }),
    ],
    { media: null, checksums: null },
  ),
  39: detail(39, failedIntake, { media: null, checksums: null }),
  38: detail(38, tasksOf("done"), { findings: FINDINGS, publications: PUBLICATIONS }),
  35: detail(35, tasksOf("crash"), {}),
};

export const LOG: Schemas["AttemptLog"] = {
  task: 0,
  epoch: 1,
  lines: Array.from(
    { length: 40 },
    (_, n) =>
      `${String(n * 0.6).slice(0, 4)} s  ${n % 9 ? `frame ${n * 6}: decoded, ${RUNGS.join(" ")} encoded` : "x264 [info]: profile High, level 4.0, 4:2:0, 8-bit"}`,
  ),
};

export const SHARES: Schemas["ShareList"] = {
  items: [
    {
      name: "incoming",
      role: "source",
      state: "ok",
      since: ago(90_000),
      reason: null,
      total_bytes: 48e12,
      free_bytes: 11.2e12,
    },
    {
      name: "partner-ftp",
      role: "source",
      state: "gone",
      since: ago(1260),
      reason: "the mount answers: Transport endpoint is not connected",
      total_bytes: null,
      free_bytes: null,
    },
    {
      name: "archive",
      role: "output",
      state: "ok",
      since: ago(90_000),
      reason: null,
      total_bytes: 240e12,
      free_bytes: 61e12,
    },
    {
      name: "output",
      role: "output",
      state: "slow",
      since: ago(320),
      reason: "answers within 4.1 s",
      total_bytes: 96e12,
      free_bytes: 3.9e12,
    },
    {
      name: "preview",
      role: "preview",
      state: "ok",
      since: ago(90_000),
      reason: null,
      total_bytes: 4e12,
      free_bytes: 2.2e12,
    },
    {
      name: "cache",
      role: "cache",
      state: "ok",
      since: ago(90_000),
      reason: null,
      total_bytes: 2e12,
      free_bytes: 0.44e12,
    },
  ],
};

const entry = (name: string, more: Partial<Schemas["Entry"]> = {}): Schemas["Entry"] => ({
  name,
  location: `incoming:2026-11/${name}`,
  kind: "file",
  size: 1_400_000_000,
  modified_at: ago(86_000),
  media: true,
  sidecars: [],
  unusable: null,
  ...more,
});

export const ENTRIES: Schemas["EntryPage"] = {
  location: "incoming:2026-11",
  next: null,
  items: [
    entry("Nordwand", { kind: "folder", size: null, media: false }),
    entry("orchard dubs", { kind: "folder", size: null, media: false }),
    entry("first-light.mov", { size: 8_412_339_127, sidecars: ["first-light.mov.md5"] }),
    entry("grand prix “final” — 2026 🏁.mxf", { size: 92_412_339_127 }),
    entry("harbour-dawn.mov", {
      size: 4_112_339_127,
      sidecars: ["harbour-dawn.mov.md5", "harbour-dawn.mov.sha256"],
    }),
    entry("late-show-2214.mov", { size: 21_412_339_127 }),
    entry("still-arriving.mov", {
      size: 912_339_127,
      modified_at: ago(4),
      unusable: "it changed within the last 10 s",
    }),
    entry("Сказка о потерянном времени.mkv", { size: 3_412_339_127 }),
    entry("first-light.mov.md5", { size: 52, media: false }),
    entry("notes.txt", { size: 2100, media: false }),
    entry("link-to-elsewhere", {
      kind: "other",
      size: null,
      media: false,
      unusable: "links are not followed",
      location: null,
    }),
  ],
};

const summary = (
  name: string,
  description: string,
  shares: string[],
  faults: Schemas["ProfileFault"][] = [],
) => ({ name, description, version: 2, shipped: faults.length === 0, hash: HASH, shares, faults });

export const PROFILES: Schemas["ProfileList"] = {
  items: [
    summary(
      "archive-and-ladder",
      "Archive copy, five-rung H.264 ladder with all languages, preview",
      ["archive", "output", "preview"],
    ),
    summary("av1", "AV1 ladder for the web, no archive copy", ["output", "preview"]),
    summary(
      "broken-example",
      "An example with a fault",
      ["nowhere"],
      [
        {
          key: "rendition.1.crf",
          value: "77",
          allowed: "0 to 51",
          line: 14,
          message: "crf is out of range",
        },
      ],
    ),
    summary("hevc-10", "10 bit HEVC ladder, HDR10 kept", ["output", "preview"]),
    summary("mezzanine-ffv1", "FFV1 mezzanine beside the archive copy", ["archive"]),
  ],
};

export const PROFILE_TEXT = `# The full ingest: a bit-exact archive copy, a ladder of H.264 for production,
# and a preview. Every key that a profile may have is explained in this file.

v = 1                       # version of this format
name = "archive-and-ladder" # a-z, 0-9, - and _
description = "Archive copy, five-rung H.264 ladder with all languages, preview"

[archive]
share = "archive"   # name of a share with role output
path = "{title}"
keep = true

[[rendition]]
name = "1080p"
width = 1920
height = 1080
crf = 21
maxrate_kbps = 8000

[[audio]]
codec = "aac"
languages = "all"   # or a list: ["eng", "rus", "und"]
`;

const worker = (more: Partial<Schemas["Worker"]> = {}): Schemas["Worker"] => ({
  id: 7,
  state: "active",
  silent: false,
  version: "0.1.0",
  engine: "x264-164.3095+x265-3.5+libav-7.1.2/haswell/e3",
  pid: 812,
  started_at: ago(90_000),
  last_seen: ago(1),
  age_ms: 900,
  capacity: { mcpu: 32_000, ram: 96e9, scratch: 400e9 },
  free: { mcpu: 3_000, ram: 41e9, scratch: 380e9 },
  running: 29,
  shares_ok: ["incoming", "archive", "output", "preview", "cache"],
  ...more,
});

export const HOLDS: Schemas["HoldList"] = {
  items: [
    {
      scope: "kind",
      name: "mux",
      reason: "the output share is being moved",
      by: "olga",
      at: ago(1900),
    },
  ],
};

/** Why a job that stands still does so. */
export const WHY: Schemas["Explanation"] = {
  state: "accepted",
  code: "share",
  because: "Task 871 (intake) waits, because share incoming is away on every worker.",
  mend: "Mount incoming again on at least one of ingest-1 and ingest-2.",
  facts: {},
};

export const NODES: Schemas["NodeList"] = {
  items: [
    { id: 1, name: "ingest-1", state: "ok", closed_because: "", worker: worker() },
    {
      id: 2,
      name: "ingest-2",
      state: "cordoned",
      closed_because: "the dispatcher: 4 of its last 11 attempts failed, 0 of 37 elsewhere",
      worker: worker({
        id: 8,
        silent: true,
        last_seen: ago(9),
        free: { mcpu: 32_000, ram: 96e9, scratch: 4e11 },
        running: 0,
      }),
    },
    {
      id: 3,
      name: "ingest-3",
      state: "ok",
      closed_because: "",
      worker: worker({
        id: 6,
        state: "lost",
        last_seen: ago(4000),
        running: 0,
        shares_ok: ["incoming", "cache"],
      }),
    },
    { id: 4, name: "spare", state: "drained", closed_because: "new disks", worker: null },
  ],
};

export const SYSTEM: Schemas["System"] = {
  version: "0.1.0",
  started_at: ago(90_000),
  database: {
    ok: true,
    since: ago(90_000),
    reason: null,
    incarnation: "b5f0c8",
    schema_version: 9,
  },
  leader: {
    epoch: 4,
    holder: "ingest-1/dispatcher/811",
    since: ago(90_000),
    up_ms: 90_000_000,
    alive: true,
  },
  event_head: 48_211,
  jobs: COUNTS,
  tasks: { running: 33, ready: 5, waiting: 61, done: 4122, failed: 1, quarantined: 1 },
  workers: { active: 2, lost: 1 },
};

export const ACCOUNTS: Schemas["AccountList"] = {
  items: [
    { name: "delivery-bot", role: "operator", disabled: false, weight: 100, open_jobs: 3 },
    { name: "intern", role: "viewer", disabled: true, weight: 100, open_jobs: 0 },
    { name: "olga", role: "admin", disabled: false, weight: 300, open_jobs: 3 },
  ],
};

export const TOKENS: Schemas["TokenList"] = {
  items: [
    {
      id: 1,
      name: "delivery-bot",
      role: "operator",
      created_at: ago(900_000),
      expires_at: ago(-8_000_000),
      revoked_at: null,
      last_used_at: ago(64),
    },
    {
      id: 2,
      name: "dashboard",
      role: "viewer",
      created_at: ago(2_900_000),
      expires_at: null,
      revoked_at: null,
      last_used_at: null,
    },
    {
      id: 3,
      name: "old-script",
      role: "operator",
      created_at: ago(9_900_000),
      expires_at: null,
      revoked_at: ago(500_000),
      last_used_at: ago(600_000),
    },
  ],
};

export const ME: Schemas["Me"] = {
  id: 1,
  name: "olga",
  kind: "user",
  role: "admin",
  session_ends_at: ago(-600_000),
};
