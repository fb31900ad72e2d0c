// A whole service of its own for the browser tests: a PostgreSQL server that can be stopped
// and started, shares in a folder below /var/tmp, and `trix up` on a free port.

import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import { createWriteStream, rmSync } from "node:fs";
import { chmod, chown, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const SERVERS = "/usr/lib/postgresql";

/** Waits until something holds; says what did not. */
export async function until<T>(
  what: string,
  look: () => Promise<T | undefined | false>,
  limit = 60_000,
): Promise<T> {
  const end = Date.now() + limit;
  let last: unknown;
  while (Date.now() < end) {
    try {
      const found = await look();
      if (found) return found;
    } catch (error) {
      last = error;
    }
    await new Promise((done) => setTimeout(done, 100));
  }
  throw new Error(`gave up waiting: ${what}`, { cause: last });
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const address = server.address();
  await new Promise((done) => server.close(done));
  if (!address || typeof address === "string") throw new Error("no free port");
  return address.port;
}

/** A PostgreSQL server without TCP, owned by an unprivileged user when we are root. */
class Database {
  private constructor(
    private bin: string,
    private folder: string,
    private ids: { uid?: number; gid?: number },
  ) {}

  static async make(folder: string): Promise<Database> {
    const versions = (await readdir(SERVERS)).sort((a, b) => Number(b) - Number(a));
    const bin = join(SERVERS, versions[0] ?? "", "bin");
    await mkdir(folder, { mode: 0o700 });
    let ids: { uid?: number; gid?: number } = {};
    if (process.getuid?.() === 0) {
      // PostgreSQL refuses to run as root.
      const [uid, gid] = await Promise.all(
        ["-u", "-g"].map(async (flag) => Number((await run("id", [flag, "postgres"])).stdout)),
      );
      ids = { uid, gid };
      await chown(folder, uid!, gid!);
    }
    const database = new Database(bin, folder, ids);
    await database.call(
      "initdb",
      "-D",
      database.data,
      "-U",
      "trix",
      "-A",
      "trust",
      "--no-sync",
      "-E",
      "UTF8",
    );
    await database.start();
    await database.call("createdb", "-h", folder, "-U", "trix", "trix");
    return database;
  }

  get url(): string {
    return `postgresql://trix@localhost/trix?host=${this.folder}`;
  }

  private get data(): string {
    return join(this.folder, "data");
  }

  private async call(program: string, ...args: string[]): Promise<string> {
    const done = await run(join(this.bin, program), args, { ...this.ids, cwd: "/" });
    return done.stdout;
  }

  async start(): Promise<void> {
    const options = `-c listen_addresses= -c unix_socket_directories=${this.folder} -c fsync=off`;
    // pg_ctl's child keeps the output open; into a file with it, or this call never ends.
    await this.call(
      "pg_ctl",
      "-D",
      this.data,
      "-w",
      "-l",
      join(this.folder, "log"),
      "-o",
      options,
      "start",
    );
  }

  async stop(): Promise<void> {
    await this.call("pg_ctl", "-D", this.data, "-w", "-m", "fast", "stop");
  }

  /** For when this process ends: no time to wait for a promise. */
  abandon(): void {
    execFileSync(join(this.bin, "pg_ctl"), ["-D", this.data, "-m", "immediate", "stop"], {
      ...this.ids,
      cwd: "/",
      stdio: "ignore",
    });
  }

  async ask(sql: string): Promise<string> {
    const out = await this.call(
      "psql",
      "-h",
      this.folder,
      "-U",
      "trix",
      "-d",
      "trix",
      "-AtXqc",
      sql,
    );
    return out.trim();
  }
}

export class Service {
  private child: ChildProcess | undefined;
  private constructor(
    readonly folder: string,
    readonly database: Database,
    readonly port: number,
    private program: string,
  ) {}

  static async make(): Promise<Service> {
    const program = process.env.TRIX_BIN;
    if (!program) throw new Error("TRIX_BIN names the program under test; scripts/ui test sets it");
    const folder = await mkdtemp("/var/tmp/trix-ui-");
    // The slots' user and PostgreSQL's must be able to come by.
    await chmod(folder, 0o755);
    for (const name of ["incoming", "archive", "output", "preview", "cache", "state"]) {
      await mkdir(join(folder, name), { mode: 0o755 });
    }
    const database = await Database.make(join(folder, "pg"));
    const service = new Service(folder, database, await freePort(), program);
    await writeFile(join(folder, "trix.toml"), service.config());
    // Whoever interrupts the tests leaves no server behind.
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
      process.once(signal, () => service.abandon());
    }
    return service;
  }

  /** Browsers take secure cookies over plain http from this name. */
  get origin(): string {
    return `http://localhost:${this.port}`;
  }

  path(...parts: string[]): string {
    return join(this.folder, ...parts);
  }

  private config(): string {
    const share = (name: string, role: string) =>
      `[[share]]\nname = "${name}"\nrole = "${role}"\nroot = "${this.path(name)}"\n`;
    return [
      `[node]\nname = "node-1"\nstate = "${this.path("state")}"\n`,
      `[database]\nurl = "${this.database.url}"\n`,
      `[api]\nlisten = "127.0.0.1:${this.port}"\n`,
      `[cache]\nmax_gib = 2\n`,
      share("incoming", "source"),
      share("archive", "output"),
      share("output", "output"),
      share("preview", "preview"),
      share("cache", "cache"),
    ].join("\n");
  }

  async start(): Promise<void> {
    const log = createWriteStream(this.path("trix.log"), { flags: "a" });
    const child = spawn(this.program, ["--config", this.path("trix.toml"), "up"], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    child.stdout.pipe(log, { end: false });
    child.stderr.pipe(log, { end: false });
    this.child = child;
    await until(
      "the service is ready",
      async () => {
        if (child.exitCode !== null) throw new Error(`trix up ended: ${await this.log()}`);
        return (await fetch(`http://127.0.0.1:${this.port}/readyz`)).ok;
      },
      90_000,
    );
    const page = await fetch(`http://127.0.0.1:${this.port}/interface/`);
    if ((await page.text()).includes("built without its UI")) {
      throw new Error("the program under test was built without the feature ui");
    }
  }

  /** Ends the process that was started here, and nothing else. */
  async stop(signal: "SIGTERM" | "SIGKILL" = "SIGTERM"): Promise<void> {
    const child = this.child;
    this.child = undefined;
    if (!child || child.exitCode !== null) return;
    const ended = new Promise((done) => child.once("exit", done));
    child.kill(signal);
    const hard = setTimeout(() => child.kill("SIGKILL"), 45_000);
    await ended;
    clearTimeout(hard);
  }

  signal(signal: "SIGSTOP" | "SIGCONT"): void {
    this.child?.kill(signal);
  }

  private abandon(): never {
    this.child?.kill("SIGKILL");
    try {
      this.database.abandon();
      rmSync(this.folder, { recursive: true, force: true });
    } finally {
      process.exit(1);
    }
  }

  async remove(): Promise<void> {
    await this.stop();
    await this.database.stop();
    await rm(this.folder, { recursive: true, force: true });
  }

  async log(): Promise<string> {
    const text = await readFile(this.path("trix.log"), "utf8").catch(() => "");
    const lines = text.split("\n").filter((line) => !line.includes('"answered"'));
    return lines.slice(-40).join("\n");
  }

  /** The one-time link that the first start writes. */
  async firstLogin(): Promise<string> {
    return until("the set-up link is written", async () =>
      (await readFile(this.path("state", "first-login"), "utf8")).trim(),
    );
  }

  /** Runs another command of the program, such as `login-link`. */
  async command(...args: string[]): Promise<string> {
    const done = await run(this.program, ["--config", this.path("trix.toml"), ...args]);
    return done.stdout.trim();
  }
}
