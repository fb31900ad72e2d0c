// Runs no-op jobs through graphile-worker and prints one line of JSON: version, jobs, seconds.
//
//   node graphile.mjs single|batched JOBS BATCH      with DATABASE_URL, in the folder of its node_modules
//
// `single` is graphile-worker as it comes: each job is fetched and completed by itself. `batched`
// is how its makers measure it: a local queue of 500, and completion in batches. Both have as many
// jobs at once as its makers' benchmark. Jobs are added in batches of BATCH while others run.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { performance } from "node:perf_hooks";

const require = createRequire(`${process.cwd()}/`);
const { Logger, makeWorkerUtils, run } = require("graphile-worker");
// The package exports its main module alone, so its own description is read as a file.
const description = join(dirname(require.resolve("graphile-worker")), "..", "package.json");
const { version } = JSON.parse(readFileSync(description, "utf8"));

const CONCURRENCY = 24;
const MODES = {
  single: {},
  batched: { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 },
};

const [mode, jobs, batch] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
if (!(mode in MODES) || !(jobs > 0) || !(batch > 0)) {
  throw new Error("usage: node graphile.mjs single|batched JOBS BATCH");
}

// Its messages go where errors go: standard output is for the figures.
const logger = new Logger(() => (level, message) => {
  if (level === "error" || level === "warning") console.error(`${level}: ${message}`);
});
const worker = {
  connectionString: process.env.DATABASE_URL,
  concurrentJobs: CONCURRENCY,
  maxPoolSize: CONCURRENCY + 1,
  logger,
  ...MODES[mode],
};

const utils = await makeWorkerUtils({ connectionString: process.env.DATABASE_URL, logger });
await utils.migrate();

let ran = 0;
const runner = await run({ preset: { worker }, taskList: { nothing: async () => void (ran += 1) }, noHandleSignals: true });
const begun = performance.now();
for (let first = 0; first < jobs; first += batch) {
  await utils.withPgClient((client) =>
    client.query(
      `select graphile_worker.add_jobs(array(
        select json_populate_record(null::graphile_worker.job_spec,
          json_build_object('identifier', 'nothing', 'payload', json_build_object('n', n)))
        from generate_series($1::int, $2::int) n))`,
      [first + 1, Math.min(first + batch, jobs)],
    ),
  );
}
// A job that ran is over when its row is gone.
const left = async () =>
  Number((await utils.withPgClient((client) => client.query("select count(*) as n from graphile_worker.jobs"))).rows[0].n);
while (ran < jobs || (await left()) > 0) {
  await new Promise((resolve) => setTimeout(resolve, 5));
}
const seconds = (performance.now() - begun) / 1000;
await runner.stop();
await utils.release();
console.log(JSON.stringify({ version, jobs: ran, seconds }));
