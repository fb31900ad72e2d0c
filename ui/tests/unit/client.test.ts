import { afterEach, describe, expect, it, vi } from "vitest";
import { ApiError, api, onApiError } from "../../src/api/client";

afterEach(() => vi.unstubAllGlobals());

const answers = (body: unknown, init?: ResponseInit) =>
  vi.stubGlobal("fetch", async () => Response.json(body, init));

async function failure(call: Promise<unknown>): Promise<ApiError> {
  const error = await call.then(
    () => undefined,
    (e: unknown) => e,
  );
  expect(error).toBeInstanceOf(ApiError);
  return error as ApiError;
}

describe("the client", () => {
  it("gives the words and the code of a problem", async () => {
    const problem = {
      status: 422,
      title: "crf is out of range",
      code: "bad_profile",
      class: "deterministic",
      allowed: "0 to 51",
    };
    answers(problem, { status: 422 });
    const error = await failure(api.validate("v = 1"));
    expect(error).toMatchObject({
      message: "crf is out of range",
      code: "bad_profile",
      status: 422,
    });
    expect(error.problem?.allowed).toBe("0 to 51");
    expect(error.transient).toBe(false);
  });

  it("knows a database that is away from a request that is refused", async () => {
    answers({ title: "the database is away", code: "database_unavailable" }, { status: 503 });
    expect(await failure(api.me())).toMatchObject({ transient: true, outage: true });
    answers({ title: "the share does not answer", code: "source_unavailable" }, { status: 503 });
    expect(await failure(api.me())).toMatchObject({ transient: true, outage: false });
  });

  it("says that nobody answered, and tells whoever listens", async () => {
    const heard = vi.fn();
    const stop = onApiError(heard);
    vi.stubGlobal("fetch", async () => {
      throw new TypeError("Failed to fetch");
    });
    const error = await failure(api.me());
    expect(error).toMatchObject({ code: "unreachable", status: 0, outage: true });
    expect(heard).toHaveBeenCalledWith(error);
    stop();
  });

  it("does not take a page of a proxy for an answer", async () => {
    vi.stubGlobal("fetch", async () => new Response("<h1>Bad gateway</h1>", { status: 502 }));
    expect(await failure(api.me())).toMatchObject({ code: "http", status: 502, transient: true });
  });

  it("sends the key that makes a repeated submission the same job", async () => {
    const fetched = vi.fn(async (request: Request) => {
      expect(request.headers.get("idempotency-key")).toBe("k1");
      return Response.json({ id: 1 }, { status: 201 });
    });
    vi.stubGlobal("fetch", fetched);
    await api.submit({ source: "in:a.mov", profile: "p" }, "k1");
    expect(fetched).toHaveBeenCalledOnce();
  });
});
