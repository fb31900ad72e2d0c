import { QueryClient } from "@tanstack/react-query";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Live, Pace } from "../../src/api/live";

/** A socket that the test speaks through. */
class FakeSocket {
  static all: FakeSocket[] = [];
  static OPEN = 1;
  readyState = 0;
  sent: Record<string, unknown>[] = [];
  onmessage: ((message: { data: string }) => void) | null = null;
  onclose: ((close: { code: number }) => void) | null = null;
  constructor(readonly url: string) {
    FakeSocket.all.push(this);
  }
  send(text: string) {
    this.sent.push(JSON.parse(text));
  }
  close() {
    this.readyState = 3;
  }
  /** The server says something. */
  say(message: unknown) {
    this.readyState = 1;
    this.onmessage?.({ data: JSON.stringify(message) });
  }
  /** The connection ends. */
  end(code = 1006) {
    this.readyState = 3;
    this.onclose?.({ code });
  }
}

const hello = { type: "hello", incarnation: "one", head: 40 };
const event = (seq: number, kind: string, job?: number) => ({
  seq,
  at: "2026-11-24T12:00:00Z",
  kind,
  job,
  data: {},
});
const socket = () => FakeSocket.all.at(-1)!;

/** What the server answers to `/readyz`. */
let readyz: () => Promise<Response>;
const ready = async () => new Response("ready\n");
const away = async () =>
  Response.json({ title: "the database is away: refused", code: "x" }, { status: 503 });
const refused = async () => {
  throw new TypeError("fetch failed");
};

let client: QueryClient;
let live: Live;
let signedOut: ReturnType<typeof vi.fn<() => void>>;
let reads: ReturnType<typeof vi.spyOn>;

beforeEach(() => {
  vi.useFakeTimers();
  FakeSocket.all = [];
  readyz = ready;
  vi.stubGlobal("WebSocket", FakeSocket);
  vi.stubGlobal("fetch", () => readyz());
  client = new QueryClient();
  reads = vi.spyOn(client, "invalidateQueries");
  signedOut = vi.fn<() => void>();
  live = new Live(client, signedOut);
  live.start();
});

afterEach(() => {
  live.stop();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const state = () => live.connection.get().state;
/** What was read again, in order. */
const readAgain = () =>
  reads.mock.calls.map((call: unknown[]) =>
    JSON.stringify((call[0] as { queryKey?: unknown } | undefined)?.queryKey),
  );

describe("the live connection", () => {
  it("starts after the newest event and is live once the server has said hello", () => {
    expect(state()).toBe("connecting");
    socket().say(hello);
    expect(state()).toBe("live");
    expect(socket().sent[0]).toEqual({ type: "resume", incarnation: "one", seq: 40 });
  });

  it("resumes after the last event that it has seen", async () => {
    socket().say(hello);
    socket().say({ type: "events", items: [event(41, "job.state", 7), event(42, "job.state", 7)] });
    socket().end();
    await vi.advanceTimersByTimeAsync(1000);
    expect(FakeSocket.all).toHaveLength(2);
    socket().say({ ...hello, head: 50 });
    expect(socket().sent[0]).toEqual({ type: "resume", incarnation: "one", seq: 42 });
  });

  it("reads the job and the list again when an event says so, a burst only once", async () => {
    socket().say(hello);
    reads.mockClear();
    const items = Array.from({ length: 20 }, (_, n) => event(41 + n, "task.state", 7));
    socket().say({ type: "events", items });
    await vi.advanceTimersByTimeAsync(100);
    const keys = readAgain();
    expect(keys.sort()).toEqual(['["job",7]', '["jobs"]']);
  });

  it("reads once more for what happened while it was reading", async () => {
    socket().say(hello);
    reads.mockClear();
    socket().say({ type: "events", items: [event(41, "task.state", 7)] });
    await vi.advanceTimersByTimeAsync(100);
    socket().say({ type: "events", items: [event(42, "task.state", 7)] });
    await vi.advanceTimersByTimeAsync(2000);
    expect(readAgain().filter((key: string) => key === '["job",7]')).toHaveLength(2);
  });

  it("reads everything when its place in the log is gone", () => {
    socket().say(hello);
    reads.mockClear();
    socket().say({ type: "snapshot", incarnation: "two", seq: 9 });
    expect(reads).toHaveBeenCalledWith();
    socket().end();
  });

  it("says at once what the server says about its database, and since when", () => {
    socket().say(hello);
    socket().say({ type: "degraded", reason: "refused", since: "2026-11-24T12:00:00Z" });
    expect(live.connection.get()).toEqual({
      state: "degraded",
      reason: "refused",
      since: new Date("2026-11-24T12:00:00Z"),
    });
    reads.mockClear();
    socket().say({ type: "recovered" });
    expect(state()).toBe("live");
    expect(reads).toHaveBeenCalledWith();
  });

  it("tells a database that is away from a server that is away", async () => {
    socket().say(hello);
    readyz = away;
    socket().end(1001);
    await vi.advanceTimersByTimeAsync(10);
    expect(live.connection.get()).toMatchObject({
      state: "degraded",
      reason: "the database is away: refused",
    });
    readyz = refused;
    await vi.advanceTimersByTimeAsync(3000);
    expect(state()).toBe("disconnected");
  });

  it("finds out within 5 s that a server is gone that did not say goodbye", async () => {
    socket().say(hello);
    readyz = () =>
      new Promise((_, fail) => setTimeout(() => fail(new DOMException("", "TimeoutError")), 2200));
    await vi.advanceTimersByTimeAsync(4000);
    expect(state()).toBe("disconnected");
  });

  it("is live again only when events flow again", async () => {
    socket().say(hello);
    readyz = refused;
    socket().end();
    await vi.advanceTimersByTimeAsync(100);
    expect(state()).toBe("disconnected");
    readyz = ready;
    await vi.advanceTimersByTimeAsync(2000);
    expect(state()).toBe("disconnected");
    socket().say(hello);
    expect(state()).toBe("live");
  });

  it("forgets the progress of before an outage", () => {
    socket().say(hello);
    const jobs = [{ job: 7, fraction: 0.4, running: 2 }];
    socket().say({ type: "progress", jobs, attempts: [] });
    expect(live.jobs.get().get(7)?.fraction).toBe(0.4);
    socket().say({ type: "degraded", reason: "refused", since: "2026-11-24T12:00:00Z" });
    expect(live.jobs.get().size).toBe(0);
  });

  it("asks for the attempts of the jobs that somebody looks at", () => {
    socket().say(hello);
    const stop = live.watch(7);
    expect(socket().sent.at(-1)).toEqual({ type: "watch", jobs: [7] });
    const again = live.watch(7);
    stop();
    expect(socket().sent.at(-1)).toEqual({ type: "watch", jobs: [7] });
    again();
    expect(socket().sent.at(-1)).toEqual({ type: "watch", jobs: [] });
  });

  it("leads to the log-in page when the session ended", () => {
    socket().say(hello);
    socket().end(4001);
    expect(signedOut).toHaveBeenCalledOnce();
  });
});

describe("the pace of a job", () => {
  it("says nothing before it has watched for a while", () => {
    const pace = new Pace();
    pace.add(0, 0.1);
    pace.add(1000, 0.2);
    expect(pace.left()).toBeUndefined();
  });

  it("is taken from what was done lately", () => {
    const pace = new Pace();
    for (let s = 0; s <= 10; s += 1) pace.add(s * 1000, 0.5 + s * 0.01);
    expect(pace.left()).toBeCloseTo(40_000, -1);
  });

  it("starts anew when the whole became larger", () => {
    const pace = new Pace();
    pace.add(0, 0.5);
    pace.add(10_000, 0.9);
    pace.add(11_000, 0.1);
    expect(pace.left()).toBeUndefined();
  });
});
