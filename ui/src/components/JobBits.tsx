// What a job looks like in a row and in a headline.

import type { Schemas } from "../api/client";
import { type JobProgress, useJobProgress } from "../api/live";
import { count, guess, percent } from "../format";
import { JOB } from "../words";
import { Badge, Bar } from "./State";

type Job = Schemas["Job"];

export function JobBadge({ job }: { job: Job }) {
  return <Badge word={JOB[job.state]} />;
}

/** True while the job can still change by itself. */
export function isMoving(job: Job): boolean {
  return JOB[job.state].moving === true;
}

/** When its work began. A job whose every task was in the cache began when it was submitted. */
export function begunAt(job: Job): string | null | undefined {
  return job.started_at ?? (job.ended_at ? job.created_at : undefined);
}

/** How far it is and how long it takes, in words. */
export function progressWords(job: Job, live: JobProgress | undefined): string {
  switch (job.state) {
    case "accepted":
      return "waits for a worker";
    case "inspecting":
      return "reading";
    case "running":
      if (live?.leftMs !== undefined) return `${guess(live.leftMs)} left`;
      if (live && live.running === 0) return "waits for a worker";
      return job.tasks.running > 0 ? count(job.tasks.running, "task") : "";
    case "cancelling":
      return "stopping";
    case "failed":
      return job.failure?.message ?? "";
    default:
      return "";
  }
}

export function fractionOf(job: Job, live: JobProgress | undefined): number {
  if (job.state === "succeeded") return 1;
  // The live number is newer, unless the list was read after the job had ended.
  return isMoving(job) && live ? live.fraction : job.fraction;
}

/** Bar, percent and time left in a table's cell. */
export function JobProgressCell({ job }: { job: Job }) {
  const live = useJobProgress(job.id);
  const fraction = fractionOf(job, live);
  const word = JOB[job.state];
  if (job.state === "succeeded") {
    return <span className="dim small nowrap">{tasksDone(job)}</span>;
  }
  if (job.state === "failed" || job.state === "cancelled") {
    return (
      <div className="clip small dim" title={job.failure?.message}>
        {job.failure?.message ?? (job.state === "cancelled" ? `at ${percent(fraction)}` : "")}
      </div>
    );
  }
  return (
    <div className="row">
      <Bar
        fraction={fraction}
        tone={word.tone}
        moving={word.moving}
        label={`Progress of ${job.title}`}
      />
      <span className="small nowrap" style={{ width: 36, textAlign: "right" }}>
        {job.planned || job.state === "inspecting" ? percent(fraction) : ""}
      </span>
      <span className="small dim clip" style={{ width: 112 }}>
        {progressWords(job, live)}
      </span>
    </div>
  );
}

function tasksDone(job: Job): string {
  const cached = job.tasks.cached ? `, ${job.tasks.cached} from the cache` : "";
  return `${count(job.tasks.total, "task")}${cached}`;
}
