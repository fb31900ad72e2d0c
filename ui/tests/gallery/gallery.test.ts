// Pictures of all pages in made-up states, wide and narrow, light and dark. Each is also
// checked: nothing sticks out of the screen, nothing breaks the content policy, no serious
// fault of accessibility.

import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { type PreviewServer, preview } from "vite";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { launch } from "../chromium";
import { faults } from "../faults";
import * as made from "./states";

const shots = process.env.TRIX_SHOTS ?? "shots";
const only = process.env.TRIX_SHOTS_ONLY;
const root = join(import.meta.dirname, "../..");
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const POLICY =
  "default-src 'none'; script-src 'self' 'nonce-__CSP_NONCE__'; style-src 'self' 'nonce-__CSP_NONCE__'; " +
  "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self'; connect-src 'self'; " +
  "manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

let server: PreviewServer;
let browser: Browser;
let base: string;
let media: string;

beforeAll(async () => {
  media = join(root, "node_modules/.gallery");
  mkdirSync(media, { recursive: true });
  mkdirSync(shots, { recursive: true });
  const ffmpeg = (...args: string[]) =>
    execFileSync("ffmpeg", ["-hide_banner", "-loglevel", "error", "-y", ...args], { cwd: media });
  const source = ["-f", "lavfi", "-i", "mandelbrot=size=640x360:rate=24:start_scale=0.6"];
  ffmpeg(
    ...source,
    "-t",
    "12",
    "-pix_fmt",
    "yuv420p",
    "-c:v",
    "libx264",
    "-preset",
    "ultrafast",
    "-movflags",
    "+faststart",
    "proxy.mp4",
  );
  ffmpeg("-i", "proxy.mp4", "-frames:v", "1", "-ss", "6", "poster.jpg");
  ffmpeg("-i", "proxy.mp4", "-vf", "fps=1,scale=160:90,tile=4x3", "-frames:v", "1", "sprite.jpg");
  server = await preview({
    root,
    logLevel: "silent",
    preview: {
      port: 0,
      strictPort: false,
      host: "127.0.0.1",
      headers: { "content-security-policy": POLICY },
    },
  });
  base = server.resolvedUrls!.local[0]!;
  browser = await launch();
});

afterAll(async () => {
  await browser?.close();
  await server?.close();
});

const vtt = `WEBVTT\n\n${Array.from({ length: 12 }, (_, n) => {
  const at = (s: number) => `00:00:${String(s).padStart(2, "0")}.000`;
  return `${at(n)} --> ${at(n + 1)}\nsprite.jpg#xywh=${(n % 4) * 160},${Math.floor(n / 4) * 90},160,90\n`;
}).join("\n")}`;

interface World {
  me?: "none";
  jobs?: "empty";
  outage?: boolean;
  link?: "setup" | "login" | "used";
  source?: string;
}

/** Answers every call of the page. */
async function mock(page: Page, world: World): Promise<void> {
  await page.route(/\/(api\/v1|readyz)/, async (route) => {
    const url = new URL(route.request().url());
    const path = url.pathname.replace("/api/v1", "");
    const json = (body: unknown, status = 200) => route.fulfill({ status, json: body });
    const problem = (status: number, code: string, title: string) =>
      json({ status, code, title, class: "deterministic" }, status);
    if (path === "/readyz") {
      return world.outage
        ? problem(503, "database_unavailable", "the database is away: connection refused")
        : route.fulfill({ body: "ready\n" });
    }
    if (path === "/session") {
      return world.me === "none"
        ? problem(401, "not_signed_in", "nobody is signed in")
        : json(made.ME);
    }
    if (path === "/session/link/inspect") {
      return world.link === "used"
        ? problem(410, "link_used", "the link was used already or has run out")
        : json({ purpose: world.link, name: world.link === "login" ? "olga" : null });
    }
    if (path === "/jobs") {
      const states = url.searchParams.get("state")?.split(",");
      const items =
        world.jobs === "empty" ? [] : made.JOBS.filter((j) => !states || states.includes(j.state));
      return json({ items, next: null, counts: world.jobs === "empty" ? {} : made.COUNTS });
    }
    const plan = /^\/jobs\/(\d+)\/plan$/.exec(path);
    if (plan)
      return json({
        job: Number(plan[1]),
        engine: "e4b1",
        text: "The source is a ProRes 422 HQ film of 23 min 42 s at 23.976 fps.\n\nIt is cut into 24 chunks of about 40 s. One decode of a chunk feeds five renditions: 1080p, 720p, 540p, 360p and 234p, each H.264 by x264 at medium.\n\nTwo sound tracks become AAC: English (stereo, 160 kb/s) and Russian (5.1, 384 kb/s).",
      });
    const job = /^\/jobs\/(\d+)$/.exec(path);
    if (job) {
      const found = made.DETAILS[Number(job[1])];
      return found ? json(found) : problem(404, "not_found", `there is no job ${job[1]}`);
    }
    if (/^\/(jobs|tasks)\/\d+\/explain$/.test(path)) return json(made.WHY);
    if (path === "/holds") return json(made.HOLDS);
    if (path.startsWith("/attempts/")) return json(made.LOG);
    if (path === "/shares") return json(made.SHARES);
    if (/^\/shares\/incoming\/entries$/.test(path)) return json(made.ENTRIES);
    if (/^\/shares\/partner-ftp\/entries$/.test(path)) {
      return problem(
        503,
        "source_unavailable",
        "partner-ftp does not answer: Transport endpoint is not connected",
      );
    }
    if (path === "/profiles") return json(made.PROFILES);
    if (path === "/profiles/validate") {
      return json({ valid: false, errors: made.PROFILES.items[2]!.faults });
    }
    if (path.startsWith("/profiles/")) {
      const one = made.PROFILES.items.find((p) => path.endsWith(`/${p.name}`))!;
      return json({ ...one, text: made.PROFILE_TEXT });
    }
    if (path === "/nodes") return json(made.NODES);
    if (path === "/system") return json(made.SYSTEM);
    if (path === "/tokens") return json(made.TOKENS);
    if (path === "/accounts") return json(made.ACCOUNTS);
    const file = /^\/publications\/\d+\/files\/(.*)$/.exec(path);
    if (file) {
      const name = decodeURIComponent(file[1]!);
      if (name === "sprite.vtt") return route.fulfill({ body: vtt, contentType: "text/vtt" });
      if (name.endsWith(".jpg"))
        return route.fulfill({ path: join(media, name), contentType: "image/jpeg" });
      return route.fulfill({ path: join(media, "proxy.mp4"), contentType: "video/mp4" });
    }
    return problem(404, "not_found", `the gallery has no answer for ${path}`);
  });
  await page.routeWebSocket(/\/ws$/, (socket) => {
    const say = (message: unknown) => socket.send(JSON.stringify(message));
    say({ type: "hello", incarnation: "gallery", head: 48_211 });
    let fraction = 0.437;
    const progress = () => {
      fraction += 0.004;
      say({
        type: "progress",
        jobs: [
          { job: 42, fraction, running: 4 },
          { job: 41, fraction: 0.62, running: 1 },
        ],
        attempts: [],
      });
    };
    if (world.outage) {
      setTimeout(
        () => say({ type: "degraded", reason: "connection refused", since: made.ago(12) }),
        700,
      );
    } else {
      progress();
      const timer = setInterval(progress, 900);
      socket.onClose(() => clearInterval(timer));
    }
  });
}

interface Shot {
  name: string;
  path: string;
  world?: World;
  /** What to do before the picture. */
  act?: (page: Page) => Promise<unknown>;
}

const SHOTS: Shot[] = [
  { name: "login", path: "login", world: { me: "none" } },
  { name: "login-setup", path: "login#token=abc", world: { me: "none", link: "setup" } },
  { name: "login-link", path: "login#token=abc", world: { me: "none", link: "login" } },
  { name: "login-used", path: "login#token=abc", world: { me: "none", link: "used" } },
  { name: "jobs", path: "jobs", act: (p) => p.waitForTimeout(5500) },
  { name: "jobs-empty", path: "jobs", world: { jobs: "empty" } },
  {
    name: "jobs-outage",
    path: "jobs",
    world: { outage: true },
    act: (p) => p.getByTestId("banner").waitFor(),
  },
  { name: "job-running", path: "jobs/42", act: (p) => p.waitForTimeout(5500) },
  { name: "job-inspecting", path: "jobs/41" },
  { name: "job-failed", path: "jobs/39" },
  {
    name: "job-done",
    path: "jobs/38",
    act: async (p) => {
      await p.locator(".strip > span").first().waitFor();
      await p.locator(".strip").hover({ position: { x: 120, y: 10 } });
    },
  },
  { name: "job-tasks", path: "jobs/42?tab=tasks" },
  { name: "job-source", path: "jobs/38?tab=source" },
  { name: "job-files", path: "jobs/38?tab=files" },
  { name: "job-plan", path: "jobs/38?tab=plan" },
  { name: "job-task", path: "jobs/35?task=113", act: (p) => p.getByRole("log").waitFor() },
  {
    name: "job-cancel",
    path: "jobs/42",
    act: (p) => p.getByRole("button", { name: "Cancel" }).click(),
  },
  {
    name: "ingest",
    path: "ingest?share=incoming&path=2026-11",
    act: (p) => p.getByText("first-light.mov").first().click(),
  },
  {
    name: "ingest-many",
    path: "ingest?share=incoming&path=2026-11",
    act: async (p) => {
      for (const n of ["first-light.mov", "harbour-dawn.mov", "late-show-2214.mov"])
        await p.getByText(n, { exact: true }).first().click();
      await p.getByRole("switch").click({ force: true });
    },
  },
  {
    name: "ingest-away",
    path: "ingest?share=partner-ftp",
    act: (p) => p.getByText("Transport endpoint").first().waitFor(),
  },
  { name: "profiles", path: "profiles" },
  { name: "profiles-broken", path: "profiles?name=broken-example" },
  {
    name: "profiles-edit",
    path: "profiles",
    act: async (p) => {
      await p.locator("label", { hasText: "Edit" }).click();
      await p.getByRole("button", { name: "Check" }).click();
      await p.getByText("It has 1 fault").waitFor();
    },
  },
  { name: "system", path: "system" },
  { name: "settings", path: "settings" },
  { name: "missing", path: "no-such-page" },
];

const SIZES = { wide: { width: 1440, height: 900 }, narrow: { width: 390, height: 844 } };

for (const size of ["wide", "narrow"] as const) {
  for (const scheme of ["light", "dark"] as const) {
    describe(`${size} ${scheme}`, () => {
      for (const shot of SHOTS.filter((s) => !only || s.name.startsWith(only))) {
        it(shot.name, async () => {
          const context = await browser.newContext({
            viewport: SIZES[size],
            colorScheme: scheme,
            hasTouch: size === "narrow",
          });
          const page = await context.newPage();
          const seen: string[] = [];
          page.on("console", (m) => {
            if (m.type() === "error" && !/Failed to load resource/.test(m.text()))
              seen.push(m.text());
          });
          page.on("pageerror", (e) => seen.push(String(e)));
          await mock(page, shot.world ?? {});
          await page.goto(base + shot.path);
          await page.waitForTimeout(700);
          await shot.act?.(page);
          await page.waitForTimeout(350);
          await page.screenshot({
            path: join(shots, `${shot.name}-${size}-${scheme}.png`),
            fullPage: shot.act === undefined,
          });
          seen.push(...(await faults(page, axe)));
          await context.close();
          expect(seen).toEqual([]);
        });
      }
    });
  }
}
