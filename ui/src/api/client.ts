// The typed client: every call either gives its data or throws an `ApiError`.

import createClient from "openapi-fetch";
import type { components, paths } from "./schema";

export type Schemas = components["schemas"];
export type Problem = Schemas["Problem"];

/** Milliseconds after which a request that was not answered is given up. */
const DEADLINE = 15_000;

/** Why a call was not done: the server's problem document, or that no server answered. */
export class ApiError extends Error {
  constructor(
    message: string,
    /** HTTP status; 0 when nothing answered. */
    readonly status: number,
    /** Stable code of the problem; `unreachable` when nothing answered. */
    readonly code: string,
    readonly problem?: Problem,
  ) {
    super(message);
    this.name = "ApiError";
  }

  /** True when the same request may succeed later without anybody's doing. */
  get transient(): boolean {
    return this.status === 0 || this.status === 503 || this.status === 502 || this.status === 504;
  }

  /** True when the database, not the request, is what is wrong. */
  get outage(): boolean {
    return this.status === 0 || this.code === "database_unavailable";
  }
}

type Listener = (error: ApiError) => void;
const listeners = new Set<Listener>();

/** Calls back for every call that fails, so that one place can react to outages and ended sessions. */
export function onApiError(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function fail(error: ApiError): never {
  for (const listener of listeners) listener(error);
  throw error;
}

const client = createClient<paths>({
  baseUrl: "/",
  // Looked up at the time of the call, because tests replace it.
  fetch: (request) => globalThis.fetch(request, { signal: deadline(request.signal) }),
});

function deadline(signal: AbortSignal): AbortSignal {
  return AbortSignal.any([signal, AbortSignal.timeout(DEADLINE)]);
}

interface Answer<T> {
  data?: T;
  error?: unknown;
  response: Response;
}

/** The data of a call; throws what went wrong. */
async function taken<T>(call: Promise<Answer<T>>): Promise<T> {
  let answer: Answer<T>;
  try {
    answer = await call;
  } catch (cause) {
    // A query that nobody waits for any more is no failure of the server.
    if (cause instanceof DOMException && cause.name === "AbortError") throw cause;
    const late = cause instanceof DOMException && cause.name === "TimeoutError";
    const words = late ? "the server did not answer in time" : "the server cannot be reached";
    return fail(new ApiError(words, 0, "unreachable"));
  }
  if (answer.response.ok) return answer.data as T;
  return fail(problemOf(answer.error, answer.response));
}

function problemOf(body: unknown, response: Response): ApiError {
  if (body && typeof body === "object" && "code" in body && "title" in body) {
    const problem = body as Problem;
    return new ApiError(problem.title, response.status, problem.code, problem);
  }
  return new ApiError(
    `the server answered ${response.status} ${response.statusText}`.trim(),
    response.status,
    "http",
  );
}

export const api = {
  me: () => taken(client.GET("/api/v1/session")),
  logIn: (body: Schemas["LogIn"]) => taken(client.POST("/api/v1/session", { body })),
  logOut: () => taken(client.DELETE("/api/v1/session")),
  inspectLink: (token: string) =>
    taken(client.POST("/api/v1/session/link/inspect", { body: { token } })),
  takeLink: (token: string) => taken(client.POST("/api/v1/session/link", { body: { token } })),
  setUp: (body: Schemas["SetUp"]) => taken(client.POST("/api/v1/session/setup", { body })),

  jobs: (
    query: NonNullable<paths["/api/v1/jobs"]["get"]["parameters"]["query"]>,
    signal: AbortSignal,
  ) => taken(client.GET("/api/v1/jobs", { params: { query }, signal })),
  job: (id: number, signal: AbortSignal) =>
    taken(client.GET("/api/v1/jobs/{id}", { params: { path: { id } }, signal })),
  plan: (id: number, signal: AbortSignal) =>
    taken(client.GET("/api/v1/jobs/{id}/plan", { params: { path: { id } }, signal })),
  submit: (body: Schemas["NewJob"], key: string) =>
    taken(client.POST("/api/v1/jobs", { body, params: { header: { "Idempotency-Key": key } } })),
  cancel: (id: number) =>
    taken(client.POST("/api/v1/jobs/{id}/cancel", { params: { path: { id } } })),
  retry: (id: number) =>
    taken(client.POST("/api/v1/jobs/{id}/retry", { params: { path: { id } } })),
  pause: (id: number) =>
    taken(client.POST("/api/v1/jobs/{id}/pause", { params: { path: { id } } })),
  resume: (id: number) =>
    taken(client.POST("/api/v1/jobs/{id}/resume", { params: { path: { id } } })),
  setPriority: (id: number, band: number) =>
    taken(client.PUT("/api/v1/jobs/{id}/priority", { params: { path: { id } }, body: { band } })),
  explainJob: (id: number, signal: AbortSignal) =>
    taken(client.GET("/api/v1/jobs/{id}/explain", { params: { path: { id } }, signal })),
  explainTask: (id: number, signal: AbortSignal) =>
    taken(client.GET("/api/v1/tasks/{id}/explain", { params: { path: { id } }, signal })),
  attemptLog: (task: number, epoch: number, signal: AbortSignal) =>
    taken(
      client.GET("/api/v1/attempts/{task}/{epoch}/log", {
        params: { path: { task, epoch } },
        signal,
      }),
    ),

  shares: (signal: AbortSignal) => taken(client.GET("/api/v1/shares", { signal })),
  entries: (name: string, path: string, cursor: string | undefined, signal: AbortSignal) =>
    taken(
      client.GET("/api/v1/shares/{name}/entries", {
        params: { path: { name }, query: { path, cursor, limit: 500 } },
        signal,
      }),
    ),

  profiles: (signal: AbortSignal) => taken(client.GET("/api/v1/profiles", { signal })),
  profile: (name: string, signal: AbortSignal) =>
    taken(client.GET("/api/v1/profiles/{name}", { params: { path: { name } }, signal })),
  putProfile: (name: string, text: string) =>
    taken(client.PUT("/api/v1/profiles/{name}", { params: { path: { name } }, body: { text } })),
  validate: (text: string) => taken(client.POST("/api/v1/profiles/validate", { body: { text } })),

  nodes: (signal: AbortSignal) => taken(client.GET("/api/v1/nodes", { signal })),
  cordon: (name: string, reason: string) =>
    taken(
      client.POST("/api/v1/nodes/{name}/cordon", { params: { path: { name } }, body: { reason } }),
    ),
  uncordon: (name: string) =>
    taken(client.POST("/api/v1/nodes/{name}/uncordon", { params: { path: { name } } })),
  drain: (name: string, reason: string) =>
    taken(
      client.POST("/api/v1/nodes/{name}/drain", { params: { path: { name } }, body: { reason } }),
    ),
  undrain: (name: string) =>
    taken(client.POST("/api/v1/nodes/{name}/undrain", { params: { path: { name } } })),
  holds: (signal: AbortSignal) => taken(client.GET("/api/v1/holds", { signal })),
  holdAll: (reason: string) => taken(client.PUT("/api/v1/holds/all", { body: { reason } })),
  lift: (hold: Schemas["Hold"]) =>
    hold.scope === "all"
      ? taken(client.DELETE("/api/v1/holds/all"))
      : taken(
          client.DELETE("/api/v1/holds/{scope}/{name}", {
            params: { path: { scope: hold.scope, name: hold.name ?? "" } },
          }),
        ),
  system: (signal: AbortSignal) => taken(client.GET("/api/v1/system", { signal })),

  accounts: (signal: AbortSignal) => taken(client.GET("/api/v1/accounts", { signal })),
  setWeight: (name: string, weight: number) =>
    taken(
      client.PUT("/api/v1/accounts/{name}/weight", {
        params: { path: { name } },
        body: { weight },
      }),
    ),

  tokens: (signal: AbortSignal) => taken(client.GET("/api/v1/tokens", { signal })),
  createToken: (body: Schemas["NewToken"]) => taken(client.POST("/api/v1/tokens", { body })),
  revokeToken: (id: number) =>
    taken(client.DELETE("/api/v1/tokens/{id}", { params: { path: { id } } })),
};

/** The words of any error. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
