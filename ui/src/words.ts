// The words and colours of states, kinds and failures: one place, so that the same thing
// looks and reads the same on every page.

import type { Schemas } from "./api/client";

type JobState = Schemas["JobState"];
type TaskState = Schemas["TaskState"];
type AttemptState = Schemas["AttemptState"];
type ShareState = Schemas["ShareState"];
type WorkerState = Schemas["WorkerState"];
type PublicationState = Schemas["PublicationState"];
type Failed = Schemas["Failed"];

/** Name of a colour: the variables `--tone-*` of app.css. */
export type Tone = "idle" | "busy" | "look" | "good" | "warn" | "bad" | "odd" | "mute";

export interface Word {
  text: string;
  tone: Tone;
  /** For whoever hovers: what the state means. */
  hint: string;
  /** True for states that pass by themselves: they are doubtful while the connection is away. */
  moving?: boolean;
}

export const JOB: Record<JobState, Word> = {
  accepted: {
    text: "Accepted",
    tone: "idle",
    hint: "Written down; waits for a worker",
    moving: true,
  },
  inspecting: {
    text: "Inspecting",
    tone: "look",
    hint: "The source is read, hashed and described",
    moving: true,
  },
  running: { text: "Running", tone: "busy", hint: "Its tasks run", moving: true },
  waiting_gate: { text: "Waits for you", tone: "warn", hint: "A person has to decide" },
  paused: { text: "Paused", tone: "warn", hint: "Held by an operator" },
  succeeded: {
    text: "Published",
    tone: "good",
    hint: "Everything was made, verified and published",
  },
  failed: { text: "Failed", tone: "bad", hint: "A task failed for good" },
  cancelling: {
    text: "Cancelling",
    tone: "warn",
    hint: "Cancel was asked for; something still runs",
    moving: true,
  },
  cancelled: { text: "Cancelled", tone: "mute", hint: "Cancelled; nothing runs" },
};

export const TASK: Record<TaskState, Word> = {
  waiting: { text: "Waiting", tone: "mute", hint: "Needs other tasks first" },
  ready: {
    text: "Ready",
    tone: "idle",
    hint: "Waits for a worker with free resources",
    moving: true,
  },
  running: { text: "Running", tone: "busy", hint: "An attempt runs", moving: true },
  done: { text: "Done", tone: "good", hint: "Its outputs exist" },
  failed: { text: "Failed", tone: "bad", hint: "Failed for good" },
  cancelled: { text: "Cancelled", tone: "mute", hint: "Cancelled" },
  quarantined: {
    text: "Quarantined",
    tone: "odd",
    hint: "It kills the process that works on it; only an operator starts it again",
  },
  skipped: { text: "Skipped", tone: "mute", hint: "Not needed" },
};

export const ATTEMPT: Record<AttemptState, Word> = {
  running: { text: "Running", tone: "busy", hint: "Runs now", moving: true },
  succeeded: { text: "Succeeded", tone: "good", hint: "Its result was taken" },
  failed: { text: "Failed", tone: "bad", hint: "It ended with an error" },
  lost: { text: "Lost", tone: "odd", hint: "Its worker fell silent; the task went elsewhere" },
  cancelled: { text: "Cancelled", tone: "mute", hint: "It was cancelled" },
};

export const SHARE: Record<ShareState, Word> = {
  ok: { text: "In order", tone: "good", hint: "It answers" },
  slow: { text: "Slow", tone: "warn", hint: "It answers slowly" },
  hung: { text: "Hung", tone: "bad", hint: "It does not answer" },
  gone: { text: "Gone", tone: "bad", hint: "The mount is dead" },
  wrong: { text: "Wrong folder", tone: "bad", hint: "Something else stands at its place" },
  ro: { text: "Read only", tone: "bad", hint: "It should be writable and is not" },
  full: { text: "Full", tone: "bad", hint: "No space is left" },
};

export const WORKER: Record<WorkerState, Word> = {
  active: { text: "Active", tone: "good", hint: "Claims and runs tasks" },
  draining: { text: "Draining", tone: "warn", hint: "Finishes what it has and claims no more" },
  lost: { text: "Lost", tone: "bad", hint: "Was silent past its deadline" },
  gone: { text: "Stopped", tone: "mute", hint: "It ended" },
};

export const NODE: Record<Schemas["NodeState"], Word> = {
  ok: { text: "Open", tone: "good", hint: "Gets work" },
  cordoned: { text: "Closed", tone: "warn", hint: "Gets no more work; what runs there goes on" },
  drained: { text: "Drained", tone: "warn", hint: "Gets no more work, and its worker leaves" },
};

export const PUBLICATION: Record<PublicationState, Word> = {
  prepared: {
    text: "Prepared",
    tone: "idle",
    hint: "Staged; nothing is visible yet",
    moving: true,
  },
  moving: { text: "Publishing", tone: "busy", hint: "Files are becoming visible", moving: true },
  published: { text: "Published", tone: "good", hint: "All of it is visible" },
  conflict: { text: "Conflict", tone: "bad", hint: "Something else stands at one of its names" },
  retracted: { text: "Retracted", tone: "mute", hint: "Taken back" },
};

export const SEVERITY: Record<Schemas["Severity"], Word> = {
  info: { text: "Info", tone: "idle", hint: "Good to know" },
  warning: { text: "Warning", tone: "warn", hint: "Worth a look" },
  error: { text: "Error", tone: "bad", hint: "Must not be published without a decision" },
};

export const ROLE: Record<Schemas["Role"], string> = {
  viewer: "Viewer: sees everything but secrets",
  operator: "Operator: submits, cancels and retries jobs",
  admin: "Admin: also makes tokens",
};

export const SHARE_ROLE: Record<Schemas["ShareRole"], string> = {
  source: "Source",
  output: "Output",
  preview: "Preview",
  cache: "Cache",
};

const KINDS: Record<string, string> = {
  intake: "Intake",
  encode_chunk: "Encode",
  copy_video: "Copy video",
  encode_audio: "Audio",
  mux: "Mux",
  verify: "Verify",
  stills: "Stills",
  copy: "Archive copy",
  publish: "Publish",
};

export function kindWord(kind: string): string {
  return KINDS[kind] ?? kind.replaceAll("_", " ");
}

const PHASES: Record<string, string> = {
  read: "reading",
  decode: "decoding",
  encode: "encoding",
  mux: "muxing",
  verify: "verifying",
  copy: "copying",
};

export function phaseWord(phase: string): string {
  return PHASES[phase] ?? phase;
}

/** A stage of the job's page: tasks that belong together, in the data's order. */
export interface Stage {
  id: string;
  name: string;
  /** What happens in it, for whoever reads it the first time. */
  says: string;
  kinds: string[];
  /** True when its tasks are many and alike: shown as cells. */
  cells?: boolean;
}

export const STAGES: Stage[] = [
  {
    id: "intake",
    name: "Intake",
    says: "Reads the source once: checksums, description, packet index, archive copy",
    kinds: ["intake", "copy"],
  },
  {
    id: "encode",
    name: "Encode",
    says: "Each cell is a chunk; one decode feeds all its renditions",
    kinds: ["encode_chunk", "copy_video"],
    cells: true,
  },
  { id: "audio", name: "Audio", says: "One task for each sound track", kinds: ["encode_audio"] },
  { id: "stills", name: "Stills", says: "Poster and thumbnails", kinds: ["stills"] },
  { id: "mux", name: "Mux", says: "Chunks and sound become files", kinds: ["mux"] },
  {
    id: "verify",
    name: "Verify",
    says: "Every finished file is decoded in full and compared with the plan",
    kinds: ["verify"],
  },
  {
    id: "publish",
    name: "Publish",
    says: "Files become visible on their shares, all at once and never over something else",
    kinds: ["publish"],
  },
];

/** What a person can do about a failure, by its code. */
const ADVICE: Record<string, string> = {
  // the file that was delivered
  not_media:
    "This is no media file that trix can read. Ask for the right file, then ingest that one.",
  empty_file: "The file has no bytes. Wait until the delivery is complete, or ask for it again.",
  no_video: "The file has no picture. Dubs and subtitles belong to a title with a video file.",
  no_frames: "The video track has no frames. Ask for the file again.",
  no_samples: "A sound track is empty. Ask for the file again.",
  no_decoder: "Its codec is not supported. Ask for another format, or transcode it first.",
  unknown_codec: "Its codec is not supported. Ask for another format, or transcode it first.",
  no_language:
    "The profile asks for languages that this file does not have. Choose another profile.",
  nested_reference:
    "The file refers to other files, which trix never opens. Ask for a self-contained file.",
  source_changed:
    "The file changed after the job was submitted. Let the delivery finish, then start the ingest again.",
  source_unstable:
    "Two reads of the same file gave different bytes. Check the storage or the network of the source share.",
  checksum_mismatch:
    "The file is not what its checksum file says. Ask for it again, or correct the checksum file.",
  sidecar_unreadable: "Correct or remove the checksum file beside the source, then start again.",
  sidecar_no_entry: "The checksum file does not name this source. Correct or remove it.",
  frames_missing: "Frames are missing in the source. Look at the findings, and ask for it again.",
  frame_missing: "Frames are missing in the source. Look at the findings, and ask for it again.",
  truncated: "The file ends too early. Wait until the delivery is complete, or ask for it again.",
  not_found: "The file is not there any more. Look on the source share whether it was moved.",
  not_a_file: "This is no regular file. Choose a file.",
  // what was asked for
  bad_profile: "Correct the profile: the page “Profiles” shows the line.",
  bad_parameter: "Correct the encoder's parameters in the profile.",
  unsupported_size: "Choose a profile whose renditions the encoder can make of this size.",
  unsupported_depth: "Choose a profile whose encoder takes this bit depth.",
  codec_not_in_container: "Choose another container or codec in the profile.",
  no_share: "Name the destination share in the profile.",
  unknown_share: "The share is not known here. Add it to trix.toml on the node.",
  path_refused: "The path leads out of its share. Choose another file.",
  name_refused: "The name cannot be used on the share. Rename the file or give a title.",
  publish_conflict:
    "Another file stands at the destination, and trix never overwrites. Move it away, then retry.",
  name_collision: "Two files would have the same name at the destination. Choose another title.",
  // the machine and the shares
  share_unavailable: "A share does not answer. It is tried again by itself as soon as it is back.",
  share_not_writable: "The share cannot be written. Correct its permissions, then retry.",
  share_io: "The share gave a read or write error. Check the storage, then retry.",
  permission_denied:
    "The node's user may not read or write there. Correct the permissions, then retry.",
  no_space: "Make space on the share, then retry.",
  out_of_memory: "It needs more memory than the node gives. Use a larger node, then retry.",
  cpu_limit: "The codecs worked on it without end. Ask for another file, or choose other settings.",
  node_limit: "The node's limits are too low for this task. Raise them, then retry.",
  output_too_large: "Make the cache share larger, then retry.",
  slot_spawn: "The node cannot start trix-media. Check its installation.",
  slot_version: "trix and trix-media on the node are of different versions. Install them together.",
  engine_mismatch: "No node has the engine that the job was planned for. Start the ingest again.",
  artifact_damaged: "A file in the cache was damaged. It is made again by itself.",
  stage_lost: "The staged copy disappeared. It is made again by itself.",
  verify_mismatch:
    "A finished file is not what the plan says, so it was not published. Retry; if it fails again, report it.",
};

const BY_ORIGIN: Record<Schemas["FailureOrigin"], string> = {
  source: "The delivered file is at fault: trying again gives the same. Ask for another file.",
  request: "What was asked for cannot be done. Change the profile or the request, and start again.",
  node: "The machine is at fault. Look at the page “System”, then retry.",
  share: "A share is at fault. Look at the page “System”, then retry.",
  engine: "The codecs failed on this file. The task's log says where; retry once, then report it.",
  bug: "This is a mistake in trix. Please report it with the task's log.",
};

const BY_CLASS: Record<"transient" | "resource", string> = {
  transient: "It is tried again by itself.",
  resource: "Give the node more memory or space, then retry.",
};

/** What to do about a failure, in a sentence. */
export function adviceFor(failure: Failed): string {
  return (
    ADVICE[failure.code] ??
    // What passes by itself passes by itself, whosever fault it is.
    (failure.class === "transient" || failure.class === "resource"
      ? BY_CLASS[failure.class]
      : BY_ORIGIN[failure.origin])
  );
}

/** A sentence from the server, with a capital and a full stop. */
export function sentence(text: string): string {
  const trimmed = text.trim();
  if (!trimmed) return trimmed;
  const begun = trimmed[0]!.toUpperCase() + trimmed.slice(1);
  return /[.!?…]$/.test(begun) ? begun : `${begun}.`;
}

/** `checksum_match` → `Checksum match`. */
export function codeWord(code: string): string {
  const words = code.replaceAll("_", " ");
  return words ? words[0]!.toUpperCase() + words.slice(1) : code;
}
