// What pages read: keys, and how fresh each must be. Events (live.ts) say when to read again.

import { infiniteQueryOptions, keepPreviousData, queryOptions } from "@tanstack/react-query";
import { ApiError, api } from "./client";

/** The states behind each filter of the jobs page. */
export const JOB_FILTERS = {
  all: [],
  active: ["accepted", "inspecting", "running", "waiting_gate", "paused", "cancelling"],
  failed: ["failed"],
  succeeded: ["succeeded"],
  cancelled: ["cancelled"],
} as const;

export type JobFilter = keyof typeof JOB_FILTERS;

/** Shares and nodes change without an event too (a share that hangs): they are looked at regularly. */
const LOOK = 5_000;

export const queries = {
  me: () => queryOptions({ queryKey: ["me"], queryFn: () => api.me(), staleTime: 60_000 }),
  jobs: (filter: JobFilter, text: string) =>
    infiniteQueryOptions({
      queryKey: ["jobs", filter, text],
      queryFn: ({ pageParam, signal }) => {
        const state = JOB_FILTERS[filter].join(",");
        return api.jobs(
          { state: state || undefined, text: text || undefined, cursor: pageParam, limit: 100 },
          signal,
        );
      },
      initialPageParam: undefined as string | undefined,
      getNextPageParam: (page) => page.next ?? undefined,
      placeholderData: keepPreviousData,
    }),
  job: (id: number) =>
    queryOptions({ queryKey: ["job", id], queryFn: ({ signal }) => api.job(id, signal) }),
  plan: (id: number) =>
    queryOptions({
      queryKey: ["job", id, "plan"],
      queryFn: ({ signal }) => api.plan(id, signal),
    }),
  whyJob: (id: number) =>
    queryOptions({
      queryKey: ["job", id, "why"],
      queryFn: ({ signal }) => api.explainJob(id, signal),
      // What it waits for changes without an event of its own.
      refetchInterval: LOOK,
    }),
  whyTask: (id: number) =>
    queryOptions({
      queryKey: ["task", id, "why"],
      queryFn: ({ signal }) => api.explainTask(id, signal),
      refetchInterval: LOOK,
    }),
  attemptLog: (task: number, epoch: number, running: boolean) =>
    queryOptions({
      queryKey: ["log", task, epoch],
      queryFn: ({ signal }) => api.attemptLog(task, epoch, signal),
      refetchInterval: running ? 2_000 : false,
    }),
  shares: () =>
    queryOptions({
      queryKey: ["shares"],
      queryFn: ({ signal }) => api.shares(signal),
      refetchInterval: LOOK,
    }),
  entries: (share: string, path: string) =>
    infiniteQueryOptions({
      queryKey: ["entries", share, path],
      queryFn: ({ pageParam, signal }) => api.entries(share, path, pageParam, signal),
      initialPageParam: undefined as string | undefined,
      getNextPageParam: (page) => page.next ?? undefined,
      // Deliveries arrive while people look.
      refetchInterval: 10_000,
    }),
  profiles: () =>
    queryOptions({ queryKey: ["profiles"], queryFn: ({ signal }) => api.profiles(signal) }),
  profile: (name: string) =>
    queryOptions({
      queryKey: ["profiles", name],
      queryFn: ({ signal }) => api.profile(name, signal),
    }),
  nodes: () =>
    queryOptions({
      queryKey: ["nodes"],
      queryFn: ({ signal }) => api.nodes(signal),
      refetchInterval: LOOK,
    }),
  holds: () =>
    queryOptions({
      queryKey: ["holds"],
      queryFn: ({ signal }) => api.holds(signal),
      refetchInterval: LOOK,
    }),
  system: () =>
    queryOptions({
      queryKey: ["system"],
      queryFn: ({ signal }) => api.system(signal),
      refetchInterval: LOOK,
    }),
  accounts: () =>
    queryOptions({ queryKey: ["accounts"], queryFn: ({ signal }) => api.accounts(signal) }),
  tokens: () => queryOptions({ queryKey: ["tokens"], queryFn: ({ signal }) => api.tokens(signal) }),
};

/** Whether a failed read is repeated: what the server refused is refused again. */
export function retryRead(failures: number, error: unknown): boolean {
  return error instanceof ApiError && error.outage && failures < 3;
}
