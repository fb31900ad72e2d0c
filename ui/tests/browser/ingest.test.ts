// A person's day with the interface, in Debian's Chromium against the real service: set-up,
// a title ingested and played, one that fails, one that is cancelled, and outages.
//
// The tests build on each other, as the day does.

import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { promisify } from "node:util";
import type { Browser, BrowserContext, Locator, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { launch } from "../chromium";
import { faults } from "../faults";
import { Service, until } from "./service";

const run = promisify(execFile);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const NAME = "olga";
const PASSWORD = "correct horse battery";
/** An ingest of seconds, on a machine that also does other things. */
const INGEST = 200_000;

let service: Service;
let browser: Browser;
let context: BrowserContext;
let page: Page;
/** What the browser complained about: script errors and breaches of the content policy. */
const complaints: string[] = [];

/** A film of its own picture, so that no other job has its chunks in the cache already. */
async function film(name: string, seconds: number, size: string, hue: number): Promise<void> {
  const tone = (hz: number) => `sine=frequency=${hz}:sample_rate=48000:duration=${seconds}`;
  await run("ffmpeg", [
    ..."-hide_banner -loglevel error -y".split(" "),
    ...["-f", "lavfi", "-i", `testsrc2=size=${size}:rate=24:duration=${seconds},hue=h=${hue}`],
    ...["-f", "lavfi", "-i", tone(440)],
    ...["-f", "lavfi", "-i", tone(660)],
    ..."-map 0 -map 1 -map 2 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 48 -c:a aac".split(
      " ",
    ),
    ..."-metadata:s:a:0 language=eng -metadata:s:a:1 language=rus".split(" "),
    service.path("incoming", name),
  ]);
}

beforeAll(async () => {
  service = await Service.make();
  await run("mkdir", ["-p", service.path("incoming", "reels")]);
  await film("First Light.mov", 12, "1280x720", 0);
  for (const [n, name] of ["cancelled", "database", "server"].entries()) {
    await film(`reels/${name}.mov`, 60, "640x360", 60 * (n + 1));
  }
  await writeFile(service.path("incoming", "readme.mov"), "This is a text.\n");
  await writeFile(service.path("incoming", "notes.txt"), "Not media at all.\n");
  const { stdout } = await run("md5sum", ["First Light.mov"], { cwd: service.path("incoming") });
  await writeFile(service.path("incoming", "First Light.mov.md5"), stdout);
  await service.start();
  browser = await launch();
  context = await browser.newContext({ viewport: { width: 1440, height: 900 } });
  page = await context.newPage();
  watch(page);
});

afterAll(async () => {
  await browser?.close();
  await service?.remove();
});

afterEach(async (test) => {
  if (test.task.result?.state === "fail") {
    console.log(
      `${page?.url()}\n${await page
        ?.locator("body")
        .innerText()
        .catch(() => "")}`,
    );
    console.log(await service?.log());
  }
  expect(complaints.splice(0)).toEqual([]);
});

function watch(page: Page): void {
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => {
    // Requests fail when the test takes the server away; that is no fault of the page.
    const network = /Failed to load resource|WebSocket connection to|ERR_/.test(message.text());
    if (message.type() === "error" && !network) complaints.push(message.text());
  });
}

const go = (path: string) => page.goto(`${service.origin}/interface/${path}`);
const shown = (where: Locator, timeout = 20_000) => where.first().waitFor({ timeout });
const row = (name: string) => page.locator("tr[data-row]", { hasText: name });
const rowOf = (table: string, name: string) =>
  page.getByRole("table", { name: table }).locator("tr[data-row]", { hasText: name });
const state = (word: string) => page.locator(".job-title .badge", { hasText: word });

/** Marks the page, so that a reload would be noticed. */
const mark = () => page.evaluate(() => Object.assign(window, { notReloaded: true }));
const notReloaded = () => page.evaluate(() => "notReloaded" in window);

/** Starts an ingest of a file through the page, and ends on the job's page. */
async function ingest(folder: string, file: string, profile: string, title?: string) {
  await go(`ingest?share=incoming${folder ? `&path=${folder}` : ""}`);
  await row(file).locator("td").nth(1).click();
  await page.getByRole("combobox", { name: "Profile" }).click();
  await page.getByRole("option", { name: profile, exact: true }).click();
  if (title) await page.getByLabel("Title").fill(title);
  await page.getByRole("button", { name: "Start the ingest" }).click();
  await page.waitForURL(/\/interface\/jobs\/\d+/);
}

describe("signing in", () => {
  it("makes the first account by the set-up link, whose token stays nowhere", async () => {
    const link = await service.firstLogin();
    expect(link).toContain(`:${service.port}/interface/login#token=`);
    await page.goto(link.replace("127.0.0.1", "localhost"));
    await page.getByLabel("Name").fill(NAME);
    await page.getByLabel("Password", { exact: true }).fill("short");
    await page.getByLabel("Password again").fill("short");
    await page.getByRole("button", { name: "Make the account" }).click();
    await shown(page.locator("text=At least 10 characters").nth(1));
    await page.getByLabel("Password", { exact: true }).fill(PASSWORD);
    await page.getByLabel("Password again").fill(PASSWORD);
    expect(page.url()).not.toContain("token");
    await page.getByRole("button", { name: "Make the account" }).click();
    await shown(page.getByText("No job yet"));
    await shown(page.getByTestId("link-state").filter({ hasText: "Live" }));
  });

  it("says that a used link was used", async () => {
    const other = await (await browser.newContext()).newPage();
    await other.goto((await service.firstLogin()).replace("127.0.0.1", "localhost"));
    await other.getByText("This link was used already").waitFor();
    await other.context().close();
  });

  it("refuses a wrong password and takes the right one, then goes where one wanted", async () => {
    const other = await (await browser.newContext()).newPage();
    await other.goto(`${service.origin}/interface/system`);
    await other.getByLabel("Name").fill(NAME);
    await other.getByLabel("Password", { exact: true }).fill("something else");
    await other.getByRole("button", { name: "Log in" }).click();
    await other.getByText("Name or password is wrong").waitFor();
    await other.getByLabel("Password", { exact: true }).fill(PASSWORD);
    await other.getByRole("button", { name: "Log in" }).click();
    await other.getByRole("heading", { name: "System" }).waitFor();
    await other.getByRole("button", { name: NAME }).click();
    await other.getByRole("menuitem", { name: "Log out" }).click();
    await other.getByRole("button", { name: "Log in" }).waitFor();
    await other.goto(`${service.origin}/interface/jobs`);
    await other.getByRole("button", { name: "Log in" }).waitFor();
    await other.context().close();
  });

  it("takes a link of trix login-link", async () => {
    const other = await (await browser.newContext()).newPage();
    const link = await service.command("login-link");
    await other.goto(link.replace("127.0.0.1", "localhost"));
    await other.getByRole("button", { name: `Log in as ${NAME}` }).click();
    await other.getByRole("heading", { name: "Jobs" }).waitFor();
    await other.context().close();
  });
});

describe("an ingest", () => {
  it("begins with a look at the source share", async () => {
    await page.getByRole("link", { name: "Ingest" }).first().click();
    await shown(row("First Light.mov"));
    expect(await row("First Light.mov").locator(".tag").innerText()).toBe("md5");
    expect(await row("notes.txt").count()).toBe(0);
    await page.locator("label", { hasText: "All files" }).last().click();
    await shown(row("notes.txt"));
    await row("reels").click();
    await shown(row("database.mov"));
    expect(page.url()).toContain("path=reels");
    await page.getByRole("navigation", { name: "Folder" }).getByText("incoming").click();
    await shown(row("First Light.mov"));
  });

  it("shows how it goes on, without a reload, until all is published", async () => {
    await ingest("", "First Light.mov", "archive-and-ladder");
    await mark();
    const seen = new Set<string>();
    await until(
      "the job is published",
      async () => {
        seen.add(await page.locator(".job-title .badge").innerText());
        const percent = page.getByTestId("job-percent");
        if (await percent.isVisible().catch(() => false)) seen.add(await percent.innerText());
        return seen.has("Published");
      },
      INGEST,
    );
    expect(await notReloaded()).toBe(true);
    // It was seen on its way, not only before and after.
    expect(seen).toContain("Running");
    const between = [...seen].filter((s) => /^\d+ %$/.test(s) && s !== "0 %" && s !== "100 %");
    expect(between.length).toBeGreaterThan(1);
    for (const stage of ["intake", "encode", "audio", "mux", "verify", "publish"]) {
      expect(await page.locator(`[data-stage=${stage}]`).getAttribute("data-tone")).toBe("good");
    }
    await shown(page.getByText("Checksum match"));
  });

  it("plays the preview and every rendition, with a poster and thumbnails", async () => {
    const player = page.getByTestId("player");
    await shown(player);
    await shown(page.locator(".strip > span"));
    const poster = page.locator(".job-poster");
    await shown(poster);
    expect(await poster.evaluate((image: HTMLImageElement) => image.naturalWidth)).toBeGreaterThan(
      0,
    );
    const names = page.getByRole("radiogroup", { name: "What to play" }).locator("label");
    const count = await names.count();
    expect(count).toBeGreaterThan(2);
    for (let n = 0; n < count; n += 1) {
      await names.nth(n).click();
      const played = await player.evaluate(async (video: HTMLVideoElement) => {
        video.muted = true;
        await video.play();
        await new Promise<void>((done, fail) => {
          video.addEventListener("error", () => fail(new Error(video.error?.message)));
          const look = () => (video.currentTime > 0.3 ? done() : setTimeout(look, 50));
          look();
        });
        video.pause();
        return { width: video.videoWidth, length: video.duration };
      });
      expect(played.width).toBeGreaterThan(0);
      expect(played.length).toBeCloseTo(12, 0);
    }
    // A click into the strip goes there: the bytes come by ranges.
    const strip = page.locator(".strip");
    const box = (await strip.boundingBox())!;
    await strip.click({ position: { x: box.width * 0.75, y: 10 } });
    await until("the player has gone there", () =>
      player.evaluate((video: HTMLVideoElement) => video.currentTime > 6 && !video.seeking),
    );
  });

  it("has its tasks, attempts and their log lines", async () => {
    await page.getByRole("tab", { name: /^Tasks/ }).click();
    await shown(row("encode/0000"));
    await row("encode/0000").click();
    const drawer = page.getByRole("dialog");
    await shown(drawer.getByText("Succeeded"));
    await shown(drawer.getByText("on node-1"));
    await shown(drawer.getByText(/^CPU /));
    await shown(drawer.getByRole("heading", { name: "Log" }));
    await page.keyboard.press("Escape");
    await drawer.waitFor({ state: "detached" });
  });

  it("says what the source is, what was published, and what was planned", async () => {
    await page.getByRole("tab", { name: "Source" }).click();
    const { stdout } = await run("sha256sum", [service.path("incoming", "First Light.mov")]);
    await shown(page.getByText(stdout.split(" ")[0]!));
    await shown(page.getByText("1280×720 · 24 fps", { exact: false }));
    await page.getByRole("tab", { name: /^Files/ }).click();
    for (const name of ["source/First Light.mov", "proxy.mp4", "poster.jpg"]) {
      await shown(page.getByRole("link", { name, exact: true }));
    }
    const href = await page
      .getByRole("link", { name: "source/First Light.mov", exact: true })
      .getAttribute("href");
    const answer = await page.request.get(`${service.origin}${href}`);
    expect(answer.status()).toBe(200);
    const copy = await answer.body();
    expect(copy.equals(readFileSync(service.path("incoming", "First Light.mov")))).toBe(true);
    await page.getByRole("tab", { name: "Plan" }).click();
    await page.waitForFunction(
      () => (document.querySelector(".plan-text")?.textContent ?? "").length > 50,
    );
  });

  it("stands in the list, which the keyboard goes through", async () => {
    await page.keyboard.press("g");
    await page.keyboard.press("j");
    await page.waitForURL(/\/jobs$/);
    await shown(row("First Light").locator(".badge", { hasText: "Published" }));
    await page.keyboard.press("/");
    await page.keyboard.type("no such title");
    await shown(page.getByText("No job fits"));
    await page.keyboard.press("Escape");
    await shown(row("First Light"));
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    await shown(state("Published"));
  });
});

describe("what goes wrong", () => {
  it("says in words why a text file named .mov fails, and what to do", async () => {
    await ingest("", "readme.mov", "archive-and-ladder");
    await shown(state("Failed"), 60_000);
    const alert = page.getByRole("alert").filter({ has: page.getByTestId("advice") });
    expect(await page.getByTestId("advice").innerText()).toMatch(/no media file/i);
    await alert.getByText("Task intake and its log").click();
    await shown(page.getByRole("dialog").getByText("intake", { exact: true }));
    await shown(page.getByRole("dialog").getByText("Failed"));
    await page.keyboard.press("Escape");
    await go("jobs?state=failed");
    await shown(row("readme"));
    expect(await page.locator("tbody tr").count()).toBe(1);
  });

  it("retries what failed when it is asked to", async () => {
    await row("readme").click();
    await page.getByRole("button", { name: "Retry" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Retry" }).click();
    await page.getByRole("dialog").waitFor({ state: "detached" });
    await until("a second attempt has failed", async () => {
      const id = /jobs\/(\d+)/.exec(page.url())![1];
      const answer = await page.request.get(`${service.origin}/api/v1/jobs/${id}`);
      const detail = await answer.json();
      return detail.job.state === "failed" && detail.attempts.length === 2;
    });
    await shown(state("Failed"));
  });

  it("pauses a job, says why it stands, and lets it go on before the others", async () => {
    await ingest("reels", "cancelled.mov", "archive-and-ladder", "Cancelled on purpose");
    await shown(state("Running"), 60_000);
    await page.getByRole("button", { name: "Pause" }).click();
    await shown(state("Paused"));
    await shown(page.getByRole("status").filter({ hasText: "paused" }));
    await page.getByRole("button", { name: "Resume" }).click();
    await shown(state("Running"), 60_000);
    await page.getByRole("button", { name: "Priority 5" }).click();
    await page.getByRole("menuitem", { name: /^9/ }).click();
    await shown(page.getByRole("button", { name: "Priority 9" }));
  });

  it("closes a node, pauses everything, and opens both again", async () => {
    const job = page.url();
    await go("system");
    await page
      .getByRole("button", { name: /^Commands for/ })
      .first()
      .click();
    await page.getByRole("menuitem", { name: "Close it for new work" }).click();
    await page.getByLabel("Why").fill("a disk is changed");
    await page.getByRole("dialog").getByRole("button", { name: "Close the node" }).click();
    await shown(page.getByRole("table", { name: "Nodes" }).getByText("Closed"));
    await page
      .getByRole("button", { name: /^Commands for/ })
      .first()
      .click();
    await page.getByRole("menuitem", { name: "Open it again" }).click();
    await shown(page.getByRole("table", { name: "Nodes" }).getByText("Active"));

    await page.getByRole("button", { name: "Pause everything" }).click();
    await page.getByLabel("Why").fill("the output share is moved");
    await page.getByRole("dialog").getByRole("button", { name: "Pause", exact: true }).click();
    await shown(page.getByText("Everything is paused: the output share is moved"));
    await page.getByRole("button", { name: "Resume" }).click();
    await shown(page.getByRole("button", { name: "Pause everything" }));
    await page.goto(job);
  });

  it("cancels a job after a question", async () => {
    await page.getByRole("button", { name: "Cancel", exact: true }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Let it run" }).click();
    await page.getByRole("dialog").waitFor({ state: "detached" });
    await page.getByRole("button", { name: "Cancel", exact: true }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Cancel the job" }).click();
    await shown(state("Cancelled"), 60_000);
    expect(await page.getByRole("button", { name: "Cancel", exact: true }).count()).toBe(0);
  });
});

describe("an outage", () => {
  it("of the database is said within 5 s, and ends without a reload or lost input", async () => {
    await ingest("reels", "database.mov", "archive-and-ladder", "Goes on");
    await shown(state("Running"), 60_000);
    const job = page.url();
    await page.getByRole("link", { name: "Ingest" }).first().click();
    await page.getByRole("navigation", { name: "Folder" }).waitFor();
    await row("First Light.mov").locator("td").nth(1).click();
    await page.getByLabel("Title").fill("Typed before the outage");
    await mark();

    const stopped = Date.now();
    const stopping = service.database.stop();
    await shown(page.getByTestId("banner").filter({ hasText: "database is away" }));
    const told = Date.now() - stopped;
    console.log(`the banner stood after ${told} ms`);
    expect(told).toBeLessThan(5_000);
    await stopping;

    // What is sent now waits, and says so.
    await page.getByRole("button", { name: "Start the ingest" }).click();
    await shown(page.getByText("Not sent yet"));
    expect(await page.getByLabel("Title").inputValue()).toBe("Typed before the outage");

    await service.database.start();
    await page.waitForURL(/\/interface\/jobs\/\d+/, { timeout: 60_000 });
    await page.getByTestId("banner").waitFor({ state: "detached", timeout: 60_000 });
    await shown(page.getByRole("heading", { name: "Typed before the outage" }));
    expect(await notReloaded()).toBe(true);
    const titled = "select count(*) from job join title on title.id = job.title_id";
    expect(
      await service.database.ask(`${titled} where title.name = 'Typed before the outage'`),
    ).toBe("1");
    await shown(state("Published"), INGEST);

    await page.goto(job);
    await shown(state("Published"), INGEST);
  });

  it("of the server is said within 5 s, nothing looks as if it ran, and it ends by itself", async () => {
    await ingest("reels", "server.mov", "archive-and-ladder", "Survives the server");
    await shown(state("Running"), 60_000);
    await mark();
    const stopped = Date.now();
    await service.stop("SIGKILL");
    await shown(page.getByTestId("banner").filter({ hasText: "server does not answer" }));
    const told = Date.now() - stopped;
    console.log(`the banner stood after ${told} ms`);
    expect(told).toBeLessThan(5_000);
    const looks = await page
      .locator(".job-title .badge")
      .evaluate((badge) => getComputedStyle(badge, "::before").animationName);
    expect(looks).toBe("none");

    await service.start();
    await page.getByTestId("banner").waitFor({ state: "detached", timeout: 60_000 });
    await shown(state("Published"), INGEST);
    expect(await notReloaded()).toBe(true);
  });
});

describe("a server that hangs", () => {
  it("is noticed although its connections stand, and believed again when it goes on", async () => {
    await go("jobs");
    await shown(page.getByTestId("link-state").filter({ hasText: "Live" }));
    await mark();
    const stopped = Date.now();
    service.signal("SIGSTOP");
    await shown(page.getByTestId("banner").filter({ hasText: "server does not answer" }));
    console.log(`the banner stood after ${Date.now() - stopped} ms`);
    service.signal("SIGCONT");
    await shown(page.getByTestId("link-state").filter({ hasText: "Live" }));
    await page.getByTestId("banner").waitFor({ state: "detached" });
    expect(await notReloaded()).toBe(true);
  });
});

describe("the other pages", () => {
  it("show the node, the shares and the database", async () => {
    await go("system");
    await shown(row("node-1").locator(".badge", { hasText: "Active" }));
    for (const share of ["incoming", "archive", "output", "preview"]) {
      await shown(row(share).locator(".badge", { hasText: "In order" }));
    }
    await shown(page.locator(".tile", { hasText: "Database" }).getByText("Answers"));
    const told = await (await page.request.get(`${service.origin}/api/v1/system`)).json();
    const words = told.leader?.alive ? "Leads" : "None leads";
    await shown(page.locator(".tile", { hasText: "Dispatcher" }).getByText(words, { exact: true }));
  });

  it("check a changed profile, and store it under a new name", async () => {
    await go("profiles?name=archive-and-ladder");
    await page.locator("label", { hasText: "Edit" }).click();
    const editor = page.getByLabel("Text of the profile");
    await page.getByRole("button", { name: "Check" }).click();
    await shown(page.getByText("Nothing is wrong with it"));
    const text = await editor.inputValue();
    await editor.fill(text.replace("crf = 21", "crf = 77"));
    await page.getByRole("button", { name: "Check" }).click();
    const alert = page.getByRole("alert");
    await shown(alert.getByText("It has 1 fault"));
    expect(await alert.innerText()).toMatch(/crf.*77.*51/s);
    await page.getByRole("button", { name: "Save" }).click();
    await shown(alert.getByText(/crf/));

    await editor.fill(text.replace('name = "archive-and-ladder"', 'name = "my-ladder"'));
    await page.getByRole("button", { name: "Save as my-ladder" }).click();
    await shown(page.getByRole("heading", { name: "my-ladder" }));
    await go("ingest");
    await page.getByRole("combobox", { name: "Profile" }).click();
    await shown(page.getByRole("option", { name: "my-ladder" }));
  });

  it("make a token that programs can use, and revoke it", async () => {
    await go("settings");
    await page.getByRole("button", { name: "Make a token" }).click();
    await page.getByLabel("Name").fill("delivery-bot");
    await page.getByRole("button", { name: "Make it" }).click();
    const secret = await page.getByTestId("secret").innerText();
    await page.getByRole("button", { name: "I have it" }).click();
    const call = () =>
      fetch(`http://127.0.0.1:${service.port}/api/v1/jobs`, {
        headers: { authorization: `Bearer ${secret}` },
      });
    expect((await call()).status).toBe(200);
    await rowOf("Tokens", "delivery-bot").getByRole("button", { name: "Revoke" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Revoke" }).click();
    await shown(rowOf("Tokens", "delivery-bot").locator(".badge", { hasText: "Revoked" }));
    expect((await call()).status).toBe(401);
  });

  it("give an account a larger share of the fleet", async () => {
    await go("settings");
    const weight = rowOf("Accounts", NAME).getByLabel(`Weight of ${NAME}`, { exact: true });
    await weight.fill("300");
    const set = page.getByRole("button", { name: `Set the weight of ${NAME}` });
    await set.click();
    // It goes as soon as the answer is there.
    await set.waitFor({ state: "hidden" });
    await page.reload();
    await expect.poll(() => weight.inputValue()).toBe("300");
  });

  it("keep the chosen appearance", async () => {
    await go("settings");
    await page.locator("label", { hasText: "Dark" }).click();
    await page.reload();
    const scheme = () => page.evaluate(() => document.documentElement.dataset.mantineColorScheme);
    expect(await scheme()).toBe("dark");
    await page.locator("label", { hasText: "As the system" }).click();
    expect(await scheme()).toBe("light");
  });
});

describe("every page", () => {
  const pages = [
    "jobs",
    "jobs/1",
    "jobs/2",
    "jobs/1?tab=tasks",
    "jobs/1?tab=source",
    "jobs/1?tab=files",
    "ingest",
    "profiles",
    "system",
    "settings",
  ];
  for (const [size, viewport] of [
    ["wide", { width: 1440, height: 900 }],
    ["narrow", { width: 390, height: 844 }],
  ] as const) {
    for (const colorScheme of ["light", "dark"] as const) {
      it(`fits the screen and can be read, ${size} and ${colorScheme}`, async () => {
        await page.setViewportSize(viewport);
        await page.emulateMedia({ colorScheme });
        const found: string[] = [];
        for (const path of pages) {
          await go(path);
          await shown(page.getByRole("heading", { level: 1 }));
          await page.waitForLoadState("networkidle");
          if (process.env.TRIX_SHOTS) {
            const name = `real-${path.replace(/\W/g, "-")}-${size}-${colorScheme}.png`;
            await page.screenshot({ path: `${process.env.TRIX_SHOTS}/${name}` });
          }
          found.push(...(await faults(page, axe)).map((fault) => `${path}: ${fault}`));
        }
        expect(found).toEqual([]);
      });
    }
  }
});
