// The job's tasks in the data's order, a line for each stage; chunks as a grid of cells.

import { Tooltip } from "@mantine/core";
import {
  IconCircle,
  IconCircleCheckFilled,
  IconCircleDashed,
  IconCircleXFilled,
  IconProgress,
} from "@tabler/icons-react";
import type { Schemas } from "../../api/client";
import { useAttemptProgress } from "../../api/live";
import { isMoving } from "../../components/JobBits";
import { count, percent, span } from "../../format";
import { kindWord, phaseWord, STAGES, type Stage, TASK, type Tone } from "../../words";

type Task = Schemas["Task"];
type Progress = Schemas["Progress"];

/** How far a running task is, 0 to 1. */
export function taskFraction(task: Task, live: ReadonlyMap<string, Progress>): number | undefined {
  if (task.state !== "running") return undefined;
  const progress = live.get(`${task.id}/${task.epoch}`) ?? task.progress;
  if (!progress?.total) return 0;
  return Math.min(1, progress.done / progress.total);
}

/** One look at a stage: its tone and what it says. */
export function stageState(tasks: Task[]): { tone: Tone; words: string } {
  const n = (...states: Task["state"][]) =>
    tasks.filter((task) => states.includes(task.state)).length;
  const failed = n("failed", "quarantined");
  const running = n("running");
  const done = n("done", "skipped");
  if (failed > 0) return { tone: "bad", words: count(failed, "failed", "failed") };
  if (done === tasks.length) return { tone: "good", words: "done" };
  if (n("cancelled") > 0) return { tone: "mute", words: "cancelled" };
  if (running > 0 || done > 0) {
    return { tone: "busy", words: tasks.length > 1 ? `${done} of ${tasks.length}` : "running" };
  }
  if (n("ready") > 0) return { tone: "idle", words: "ready" };
  return { tone: "mute", words: "waits" };
}

/** From the first start to the last end of a stage, in milliseconds. */
export function stageTook(tasks: Task[]): number | undefined {
  const starts = tasks.flatMap((task) => (task.started_at ? [Date.parse(task.started_at)] : []));
  const ends = tasks.flatMap((task) => (task.ended_at ? [Date.parse(task.ended_at)] : []));
  if (starts.length === 0 || ends.length === 0) return undefined;
  return Math.max(0, Math.max(...ends) - Math.min(...starts));
}

const ICON: Partial<Record<Tone, typeof IconCircle>> = {
  good: IconCircleCheckFilled,
  bad: IconCircleXFilled,
  busy: IconProgress,
  idle: IconCircle,
};

export function Stages({
  detail,
  openTask,
}: {
  detail: Schemas["JobDetail"];
  openTask: (task: number) => void;
}) {
  const live = useAttemptProgress();
  const kinds = new Set(STAGES.flatMap((stage) => stage.kinds));
  // A kind that this page does not know yet is still shown.
  const others = [...new Set(detail.tasks.map((task) => task.kind))].filter((k) => !kinds.has(k));
  const stages: Stage[] = [
    ...STAGES,
    ...others.map((kind) => ({ id: kind, name: kindWord(kind), says: "", kinds: [kind] })),
  ];
  return (
    <section className="panel" aria-label="Stages">
      {stages.map((stage) => {
        const tasks = detail.tasks.filter((task) => stage.kinds.includes(task.kind));
        if (tasks.length === 0) {
          // Before the plan is known, the stages to come are said, without tasks.
          return !detail.job.planned && stage.id !== "stills" ? (
            <div key={stage.id} className="stage" data-tone="mute">
              <span className="stage-icon">
                <IconCircleDashed size={18} />
              </span>
              <span className="stage-name faint">{stage.name}</span>
              <span className="faint small stage-what">
                {isMoving(detail.job) ? "planned once the source was inspected" : "not reached"}
              </span>
              <span />
            </div>
          ) : null;
        }
        const state = stageState(tasks);
        const Icon = ICON[state.tone] ?? IconCircleDashed;
        const took = state.words === "done" ? stageTook(tasks) : undefined;
        return (
          <div key={stage.id} className="stage" data-tone={state.tone} data-stage={stage.id}>
            <span className="stage-icon">
              <Icon size={18} />
            </span>
            <Tooltip label={stage.says} disabled={!stage.says} position="top-start">
              <span className="stage-name">{stage.name}</span>
            </Tooltip>
            <div className="stage-what">
              {stage.cells && tasks.length > 1 ? (
                <Cells tasks={tasks} live={live} openTask={openTask} />
              ) : (
                <Chips tasks={tasks} live={live} openTask={openTask} stage={stage} />
              )}
            </div>
            <span className="stage-side">
              {state.words}
              {took !== undefined && ` · ${span(took)}`}
            </span>
          </div>
        );
      })}
    </section>
  );
}

/** The part of a task's name behind its stage. */
function label(task: Task): string {
  const slash = task.name.indexOf("/");
  return slash < 0 ? task.name : task.name.slice(slash + 1);
}

function hint(task: Task, fraction: number | undefined, progress: Progress | undefined): string {
  const word = TASK[task.state];
  const parts = [`${task.name}: ${word.text.toLowerCase()}`];
  if (fraction !== undefined) {
    parts.push(progress ? `${phaseWord(progress.phase)}, ${percent(fraction)}` : percent(fraction));
  }
  if (task.cached) parts.push("from the cache");
  if (task.node && task.state !== "waiting") parts.push(`on ${task.node}`);
  if (task.waits_for) parts.push(task.waits_for);
  if (task.failure) parts.push(task.failure.message);
  if (task.epoch > 1) parts.push(`attempt ${task.epoch}`);
  return parts.join(" · ");
}

function Cells({
  tasks,
  live,
  openTask,
}: {
  tasks: Task[];
  live: ReadonlyMap<string, Progress>;
  openTask: (task: number) => void;
}) {
  const cached = tasks.some((task) => task.cached);
  return (
    <div className="stack" style={{ gap: 6 }}>
      <div className="cells" data-many={tasks.length > 160 || undefined}>
        {tasks.map((task) => {
          const fraction = taskFraction(task, live);
          const progress = live.get(`${task.id}/${task.epoch}`) ?? task.progress ?? undefined;
          const word = TASK[task.state];
          const words = hint(task, fraction, progress);
          const fill = fraction ?? (task.state === "waiting" || task.state === "ready" ? 0 : 1);
          return (
            <button
              key={task.id}
              type="button"
              className="cell"
              data-tone={word.tone}
              data-state={task.state}
              data-moving={task.state === "running" || undefined}
              data-cached={task.cached || undefined}
              title={words}
              aria-label={words}
              onClick={() => openTask(task.id)}
            >
              <i style={{ height: `${Math.round(fill * 100)}%` }} />
            </button>
          );
        })}
      </div>
      {cached && (
        <div className="legend">
          <span>
            <i className="cell" data-tone="good" data-cached>
              <i style={{ height: "100%" }} />
            </i>
            from the cache: {tasks.filter((task) => task.cached).length}
          </span>
        </div>
      )}
    </div>
  );
}

function Chips({
  tasks,
  live,
  openTask,
  stage,
}: {
  tasks: Task[];
  live: ReadonlyMap<string, Progress>;
  openTask: (task: number) => void;
  stage: Stage;
}) {
  return (
    <div className="chips">
      {tasks.map((task) => {
        const fraction = taskFraction(task, live);
        const progress = live.get(`${task.id}/${task.epoch}`) ?? task.progress ?? undefined;
        const word = TASK[task.state];
        const words = hint(task, fraction, progress);
        const name = task.kind === stage.id || tasks.length === 1 ? undefined : label(task);
        return (
          <button
            key={task.id}
            type="button"
            className="chip"
            data-tone={word.tone}
            data-moving={word.moving || undefined}
            title={words}
            onClick={() => openTask(task.id)}
          >
            {name ?? (task.name.includes("/") ? label(task) : word.text.toLowerCase())}
            {task.cached && <span className="small">cached</span>}
            {fraction !== undefined && (
              <>
                <span className="small">
                  {progress ? `${phaseWord(progress.phase)} ` : ""}
                  {percent(fraction)}
                </span>
                <i style={{ width: `${fraction * 100}%` }} />
              </>
            )}
          </button>
        );
      })}
    </div>
  );
}
