// Addresses: what a person can bookmark and send to a colleague.

import type { QueryClient } from "@tanstack/react-query";
import {
  createRootRouteWithContext,
  createRoute,
  createRouter,
  Outlet,
  redirect,
} from "@tanstack/react-router";
import { JOB_FILTERS, type JobFilter } from "./api/queries";
import { NotFound, PageError } from "./components/Messages";
import { Shell } from "./components/Shell";
import { IngestPage } from "./pages/Ingest";
import { JobPage } from "./pages/Job";
import { JobsPage } from "./pages/Jobs";
import { LogInPage } from "./pages/LogIn";
import { ProfilesPage } from "./pages/Profiles";
import { SettingsPage } from "./pages/Settings";
import { SystemPage } from "./pages/System";

const root = createRootRouteWithContext<{ client: QueryClient }>()({ component: Outlet });

const text = (value: unknown): string | undefined =>
  typeof value === "string" && value !== "" ? value : undefined;

const logIn = createRoute({
  getParentRoute: () => root,
  path: "/login",
  validateSearch: (search: Record<string, unknown>): { next?: string } => ({
    next: text(search.next),
  }),
  component: LogInPage,
});

const shell = createRoute({ getParentRoute: () => root, id: "shell", component: Shell });

const home = createRoute({
  getParentRoute: () => shell,
  path: "/",
  beforeLoad: () => {
    throw redirect({ to: "/jobs", replace: true });
  },
});

export interface JobsSearch {
  state?: JobFilter;
  text?: string;
}

const jobs = createRoute({
  getParentRoute: () => shell,
  path: "/jobs",
  validateSearch: (search: Record<string, unknown>): JobsSearch => {
    const state = text(search.state);
    return {
      state: state && state in JOB_FILTERS ? (state as JobFilter) : undefined,
      text: text(search.text),
    };
  },
  component: JobsPage,
});

export const JOB_TABS = ["overview", "tasks", "source", "files", "plan"] as const;
export type JobTab = (typeof JOB_TABS)[number];

export interface JobSearch {
  tab?: JobTab;
  /** Task whose drawer is open. */
  task?: number;
}

const job = createRoute({
  getParentRoute: () => shell,
  path: "/jobs/$id",
  params: {
    parse: ({ id }) => ({ id: Number(id) }),
    stringify: ({ id }) => ({ id: String(id) }),
  },
  validateSearch: (search: Record<string, unknown>): JobSearch => ({
    tab: JOB_TABS.find((tab) => tab === search.tab),
    task: Number.isSafeInteger(search.task) ? (search.task as number) : undefined,
  }),
  component: JobPage,
});

export interface IngestSearch {
  share?: string;
  path?: string;
}

const ingest = createRoute({
  getParentRoute: () => shell,
  path: "/ingest",
  validateSearch: (search: Record<string, unknown>): IngestSearch => ({
    share: text(search.share),
    path: text(search.path),
  }),
  component: IngestPage,
});

const profiles = createRoute({
  getParentRoute: () => shell,
  path: "/profiles",
  validateSearch: (search: Record<string, unknown>): { name?: string } => ({
    name: text(search.name),
  }),
  component: ProfilesPage,
});

const system = createRoute({
  getParentRoute: () => shell,
  path: "/system",
  component: SystemPage,
});

const settings = createRoute({
  getParentRoute: () => shell,
  path: "/settings",
  component: SettingsPage,
});

const tree = root.addChildren([
  logIn,
  shell.addChildren([home, jobs, job, ingest, profiles, system, settings]),
]);

export function makeRouter(client: QueryClient) {
  return createRouter({
    routeTree: tree,
    basepath: "/interface",
    context: { client },
    defaultPreload: false,
    defaultNotFoundComponent: NotFound,
    defaultErrorComponent: PageError,
    scrollRestoration: true,
  });
}

declare module "@tanstack/react-router" {
  interface Register {
    router: ReturnType<typeof makeRouter>;
  }
}
