// The live connection: one WebSocket that says what changed, and the truth about whether
// what is on the screen can be believed.
//
// Events carry no state that pages show; they say which lists to read again. Progress is
// not numbered and goes straight to the pages.

import type { QueryClient } from "@tanstack/react-query";
import { useSyncExternalStore } from "react";
import { api, onApiError, type Schemas } from "./client";

type ServerMessage = Schemas["ServerMessage"];
type Event = Schemas["Event"];

export type Connection =
  /** Before the first answer. */
  | { state: "connecting" }
  /** What is shown is at most a second old. */
  | { state: "live" }
  /** The server answers, its database does not. */
  | { state: "degraded"; since: Date; reason: string }
  /** The server does not answer. */
  | { state: "disconnected"; since: Date; reason: string };

/** How far a job is, as the server said it last. */
export interface JobProgress {
  fraction: number;
  running: number;
  /** Milliseconds to go by the pace of the last minute; absent while the pace is unknown. */
  leftMs?: number;
}

/** A server that has said nothing for so long is asked whether it lives. */
const QUIET = 1_200;
/** The longest wait for that answer: with QUIET and a beat of the pulse well below the 5 s that people wait for the banner. */
const KNOCK = 2_200;
/** How often is looked whether the server is quiet. */
const PULSE = 300;
/** Waits between two attempts to connect. */
const BACKOFF = [300, 700, 1_500, 2_500];
/** Two reads of the same list are at least so far apart. */
const REREAD = 500;
/** The pace of a job is taken from the samples of so many milliseconds. */
const PACE_WINDOW = 60_000;
/** No time left is said from fewer milliseconds than this. */
const PACE_MIN = 4_000;

/** Close codes of crates/trix-api/src/ws.rs. */
const CLOSE_SIGNED_OUT = 4001;

/** A value with subscribers. */
class Store<T> {
  private listeners = new Set<() => void>();
  constructor(private value: T) {}
  get = (): T => this.value;
  set = (value: T): void => {
    this.value = value;
    for (const listener of this.listeners) listener();
  };
  subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };
}

/** Estimates the time left from how the fraction rose lately. */
export class Pace {
  private samples: { at: number; fraction: number }[] = [];

  add(at: number, fraction: number): void {
    const last = this.samples.at(-1);
    // The plan became known, or a result was lost: the old pace says nothing.
    if (last && fraction < last.fraction) this.samples = [];
    this.samples.push({ at, fraction });
    while (this.samples.length > 2 && at - this.samples[0]!.at > PACE_WINDOW) this.samples.shift();
  }

  left(): number | undefined {
    const first = this.samples[0];
    const last = this.samples.at(-1);
    if (!first || !last) return undefined;
    const took = last.at - first.at;
    const done = last.fraction - first.fraction;
    if (took < PACE_MIN || done <= 0) return undefined;
    return ((1 - last.fraction) / done) * took;
  }
}

/** Reads lists again, each at most once in `REREAD`, and once more if something happened meanwhile. */
class Rereader {
  private pending = new Map<string, { again: boolean }>();
  constructor(private client: QueryClient) {}

  mark(key: readonly unknown[]): void {
    const name = JSON.stringify(key);
    const running = this.pending.get(name);
    if (running) {
      running.again = true;
      return;
    }
    const entry = { again: false };
    this.pending.set(name, entry);
    // Events come in bursts; the first of a burst waits a moment for the rest.
    setTimeout(async () => {
      entry.again = false;
      await this.client.invalidateQueries({ queryKey: key }, { throwOnError: false });
      setTimeout(() => {
        this.pending.delete(name);
        if (entry.again) this.mark(key);
      }, REREAD);
    }, 60);
  }
}

export class Live {
  readonly connection = new Store<Connection>({ state: "connecting" });
  readonly jobs = new Store<ReadonlyMap<number, JobProgress>>(new Map());
  readonly attempts = new Store<ReadonlyMap<string, Schemas["Progress"]>>(new Map());

  private socket: WebSocket | undefined;
  private rereader: Rereader;
  private paces = new Map<number, Pace>();
  private position: { incarnation: string; seq: number } | undefined;
  private watched = new Map<number, number>();
  private failures = 0;
  private heard = Date.now();
  private timer: ReturnType<typeof setTimeout> | undefined;
  private pulse: ReturnType<typeof setInterval> | undefined;
  private knocking = false;
  private stops: (() => void)[] = [];

  constructor(
    private client: QueryClient,
    private signedOut: () => void,
  ) {
    this.rereader = new Rereader(client);
  }

  start(): void {
    if (this.pulse) return;
    this.connect();
    this.pulse = setInterval(() => this.listen(), PULSE);
    const wake = () => this.wake();
    window.addEventListener("online", wake);
    window.addEventListener("offline", wake);
    document.addEventListener("visibilitychange", wake);
    this.stops = [
      () => window.removeEventListener("online", wake),
      () => window.removeEventListener("offline", wake),
      () => document.removeEventListener("visibilitychange", wake),
      // A request that failed is the earliest sign of an outage.
      onApiError((error) => {
        if (error.outage) void this.knock();
      }),
    ];
  }

  stop(): void {
    for (const stop of this.stops) stop();
    clearTimeout(this.timer);
    clearInterval(this.pulse);
    this.pulse = undefined;
    this.position = undefined;
    this.drop();
    this.connection.set({ state: "connecting" });
  }

  /** Asks for the progress of a job's attempts for as long as somebody looks at it. */
  watch(job: number): () => void {
    this.watched.set(job, (this.watched.get(job) ?? 0) + 1);
    this.sendWatch();
    return () => {
      const left = (this.watched.get(job) ?? 1) - 1;
      if (left > 0) this.watched.set(job, left);
      else this.watched.delete(job);
      this.sendWatch();
    };
  }

  private connect(): void {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/ws`);
    this.socket = socket;
    socket.onmessage = (message) => {
      if (this.socket === socket) this.hear(JSON.parse(message.data as string) as ServerMessage);
    };
    socket.onclose = (close) => {
      if (this.socket !== socket) return;
      this.socket = undefined;
      if (close.code === CLOSE_SIGNED_OUT) {
        this.signedOut();
        return;
      }
      void this.knock();
      this.reconnect();
    };
  }

  private reconnect(): void {
    clearTimeout(this.timer);
    const wait = BACKOFF[Math.min(this.failures, BACKOFF.length - 1)];
    this.failures += 1;
    this.timer = setTimeout(() => this.connect(), wait);
  }

  private drop(): void {
    const socket = this.socket;
    this.socket = undefined;
    if (!socket) return;
    socket.onclose = null;
    socket.onmessage = null;
    socket.close();
  }

  private wake(): void {
    if (document.visibilityState === "hidden") return;
    if (!this.socket) {
      this.failures = 0;
      this.reconnect();
    }
    void this.knock();
  }

  /** A connection can die without a word; so a quiet server is asked. */
  private listen(): void {
    if (document.visibilityState === "hidden") return;
    if (Date.now() - this.heard > QUIET) void this.knock();
  }

  /** Asks the server whether it is ready, and says so on the screen. */
  private async knock(): Promise<void> {
    if (this.knocking) return;
    this.knocking = true;
    try {
      const answer = await fetch("/readyz", {
        signal: AbortSignal.timeout(KNOCK),
        cache: "no-store",
      });
      this.heard = Date.now();
      if (answer.ok) {
        // Ready is not yet live: events must flow again before the screen can be believed.
        if (this.socket?.readyState === WebSocket.OPEN) this.recovered();
        // A server that is ready and takes no socket has most likely ended the session:
        // the answer is 401 then, which leads to the log-in page.
        else if (this.failures >= 2) await api.me().catch(() => undefined);
      } else {
        const problem: { title?: string } = await answer.json().catch(() => ({}));
        this.lost("degraded", problem.title ?? `the server answered ${answer.status}`);
      }
    } catch {
      // The next question comes with the next pulse, not at once.
      this.heard = Date.now();
      this.lost("disconnected", "the server does not answer");
      // The socket may look open for minutes on a dead network.
      if (this.socket?.readyState === WebSocket.OPEN) {
        this.drop();
        this.reconnect();
      }
    } finally {
      this.knocking = false;
    }
  }

  private lost(state: "degraded" | "disconnected", reason: string, since = new Date()): void {
    const now = this.connection.get();
    if (now.state === state) {
      if (now.reason !== reason) this.connection.set({ ...now, reason });
      return;
    }
    // Whatever is away first is what people wait for since.
    const from = now.state === "degraded" || now.state === "disconnected" ? now.since : since;
    this.connection.set({ state, reason, since: from });
    this.jobs.set(new Map());
    this.attempts.set(new Map());
    this.paces.clear();
  }

  private recovered(): void {
    if (this.connection.get().state === "live") return;
    this.failures = 0;
    this.connection.set({ state: "live" });
    // What failed or grew old meanwhile is read again, without a reload. At the first start
    // this covers what happened between reading a list and the hello.
    void this.client.invalidateQueries();
  }

  private hear(message: ServerMessage): void {
    this.heard = Date.now();
    switch (message.type) {
      case "hello": {
        const known = this.position ?? { incarnation: message.incarnation, seq: message.head };
        this.position = known;
        this.send({ type: "resume", ...known });
        this.sendWatch();
        this.recovered();
        break;
      }
      case "events":
        this.events(message.items);
        break;
      case "snapshot":
        this.position = { incarnation: message.incarnation, seq: message.seq };
        void this.client.invalidateQueries();
        break;
      case "progress":
        this.progress(message.jobs, message.attempts);
        break;
      case "degraded":
        this.lost("degraded", message.reason, new Date(message.since));
        break;
      case "recovered":
        this.recovered();
        break;
    }
  }

  private events(items: Event[]): void {
    const position = this.position;
    const first = items[0];
    const last = items.at(-1);
    if (!position || !first || !last) return;
    if (first.seq > position.seq + 1) {
      // A hole: the server never sends one, so what was missed is read in full.
      void this.client.invalidateQueries();
    }
    position.seq = Math.max(position.seq, last.seq);
    for (const event of items) this.event(event);
  }

  private event(event: Event): void {
    const place = event.kind.split(".")[0];
    if (event.job != null) {
      this.rereader.mark(["job", event.job]);
      this.rereader.mark(["jobs"]);
    }
    if (place === "worker" || place === "node") this.rereader.mark(["nodes"]);
    if (place === "share") this.rereader.mark(["shares"]);
    if (place === "leader" || place === "worker") this.rereader.mark(["system"]);
    if (place === "token" || place === "principal") this.rereader.mark(["tokens"]);
  }

  private progress(jobs: Schemas["JobProgress"][], attempts: Schemas["AttemptProgress"][]): void {
    const now = Date.now();
    const next = new Map<number, JobProgress>();
    for (const { job, fraction, running } of jobs) {
      let pace = this.paces.get(job);
      if (!pace) {
        pace = new Pace();
        this.paces.set(job, pace);
      }
      pace.add(now, fraction);
      next.set(job, { fraction, running, leftMs: pace.left() });
    }
    for (const job of this.paces.keys()) if (!next.has(job)) this.paces.delete(job);
    this.jobs.set(next);
    this.attempts.set(new Map(attempts.map((a) => [`${a.task}/${a.epoch}`, a.progress])));
  }

  private send(message: Schemas["ClientMessage"]): void {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  private sendWatch(): void {
    this.send({ type: "watch", jobs: [...this.watched.keys()] });
  }
}

let live: Live | undefined;

/** Makes the one connection of this page. */
export function makeLive(client: QueryClient, signedOut: () => void): Live {
  live = new Live(client, signedOut);
  return live;
}

function the(): Live {
  if (!live) throw new Error("the live connection is made before anything is shown");
  return live;
}

/** Connects; what it returns disconnects. */
export function startLive(): () => void {
  the().start();
  return () => the().stop();
}

export function useConnection(): Connection {
  return useSyncExternalStore(the().connection.subscribe, the().connection.get);
}

export function useJobProgress(job: number): JobProgress | undefined {
  return useSyncExternalStore(the().jobs.subscribe, () => the().jobs.get().get(job));
}

export function useAttemptProgress(): ReadonlyMap<string, Schemas["Progress"]> {
  return useSyncExternalStore(the().attempts.subscribe, the().attempts.get);
}

export function watchJob(job: number): () => void {
  return the().watch(job);
}
