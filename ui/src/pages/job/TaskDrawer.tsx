// One task: why it stands as it does, its attempts, and what they said.

import { Drawer, SegmentedControl } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";
import type { Schemas } from "../../api/client";
import { useAttemptProgress } from "../../api/live";
import { queries } from "../../api/queries";
import { Copy } from "../../components/Copy";
import { Empty, ErrorNote, Loading, Note } from "../../components/Messages";
import { Badge, Bar, Tag } from "../../components/State";
import { Ago, Took } from "../../components/Time";
import { bytes, percent, span } from "../../format";
import { ATTEMPT, adviceFor, kindWord, phaseWord, sentence, TASK } from "../../words";

type Task = Schemas["Task"];
type Attempt = Schemas["Attempt"];

export function TaskDrawer({
  detail,
  task,
  onClose,
  openTask,
}: {
  detail: Schemas["JobDetail"];
  task: Task | undefined;
  onClose: () => void;
  openTask: (task: number) => void;
}) {
  return (
    <Drawer
      opened={task !== undefined}
      onClose={onClose}
      position="right"
      size={620}
      padding="md"
      title={
        task && (
          <div className="row wrap">
            <h2>{task.name}</h2>
            <Badge word={TASK[task.state]} />
            {task.cached && <Tag title="The cache had all its outputs">cached</Tag>}
          </div>
        )
      }
    >
      {task && <TaskBody key={task.id} detail={detail} task={task} openTask={openTask} />}
    </Drawer>
  );
}

/** Why it does not run, and what would mend that. */
function Waiting({ task }: { task: Task }) {
  const stands = task.state === "waiting" || task.state === "ready";
  const why = useQuery({ ...queries.whyTask(task.id), enabled: stands });
  if (!stands) return null;
  const said = why.data?.because ?? (task.waits_for ? sentence(task.waits_for) : undefined);
  return said ? (
    <Note tone="idle" title={said}>
      {why.data?.mend}
    </Note>
  ) : null;
}

function TaskBody({
  detail,
  task,
  openTask,
}: {
  detail: Schemas["JobDetail"];
  task: Task;
  openTask: (task: number) => void;
}) {
  const attempts = detail.attempts.filter((attempt) => attempt.task === task.id);
  const byName = new Map(detail.tasks.map((t) => [t.name, t]));
  // The failure of the last attempt is the task's: it is said once.
  const said = task.failure && (task.state === "failed" || task.state === "quarantined");
  return (
    <div className="stack">
      {task.failure && said && (
        <Note tone={TASK[task.state].tone} role="alert" title={sentence(task.failure.message)}>
          <div>{adviceFor(task.failure)}</div>
          <div className="small dim">
            <code>{task.failure.code}</code>
            {task.failure.object && ` · ${task.failure.object}`}
          </div>
        </Note>
      )}
      <Waiting task={task} />
      {task.roll_forward && (
        <Note tone="busy">A publication that was prepared is being finished.</Note>
      )}
      <dl className="facts">
        <dt>Kind</dt>
        <dd>{kindWord(task.kind)}</dd>
        <dt>Needs</dt>
        <dd>
          <Needs task={task} byName={byName} openTask={openTask} />
        </dd>
        <dt>Estimate</dt>
        <dd>{span(task.estimate_ms)} on one core</dd>
      </dl>
      {attempts.length > 0 ? (
        <Attempts attempts={attempts} said={said ? task.epoch : undefined} />
      ) : (
        <div className="panel">
          <Empty title={task.cached ? "It needed no attempt" : "No attempt yet"}>
            <p>
              {task.cached
                ? "The cache had all its outputs from an earlier job."
                : TASK[task.state].hint}
            </p>
          </Empty>
        </div>
      )}
    </div>
  );
}

/** What must be done first; a hundred chunks are said as a number. */
function Needs({
  task,
  byName,
  openTask,
}: {
  task: Task;
  byName: Map<string, Task>;
  openTask: (task: number) => void;
}) {
  if (task.needs.length === 0) return "nothing";
  const open = task.needs.filter((name) => {
    const state = byName.get(name)?.state;
    return state !== "done" && state !== "skipped";
  });
  const shown = task.needs.length > 12 ? open.slice(0, 12) : task.needs;
  return (
    <span className="row wrap" style={{ gap: 4 }}>
      {task.needs.length > 12 && (
        <span className="dim">
          {task.needs.length - open.length} of {task.needs.length} are done
        </span>
      )}
      {shown.map((name) => {
        const needed = byName.get(name);
        return (
          <button
            key={name}
            type="button"
            className="chip"
            data-tone={needed ? TASK[needed.state].tone : "mute"}
            onClick={() => needed && openTask(needed.id)}
          >
            {name}
          </button>
        );
      })}
    </span>
  );
}

function Attempts({ attempts, said }: { attempts: Attempt[]; said: number | undefined }) {
  const newest = attempts.at(-1)!;
  const [chosen, setChosen] = useState<number>();
  const attempt = attempts.find((a) => a.epoch === chosen) ?? newest;
  const live = useAttemptProgress();
  const progress =
    attempt.state === "running"
      ? (live.get(`${attempt.task}/${attempt.epoch}`) ?? attempt.progress)
      : undefined;
  const fraction = progress?.total ? progress.done / progress.total : 0;
  return (
    <section className="stack" style={{ gap: 10 }}>
      {attempts.length > 1 && (
        <div style={{ overflowX: "auto" }}>
          <SegmentedControl
            size="xs"
            aria-label="Attempt"
            value={String(attempt.epoch)}
            onChange={(value) => setChosen(Number(value))}
            data={attempts.map((a) => ({
              value: String(a.epoch),
              label: `Attempt ${a.epoch}`,
            }))}
          />
        </div>
      )}
      <div className="row wrap">
        {attempts.length === 1 && <h3>Attempt {attempt.epoch}</h3>}
        <Badge word={ATTEMPT[attempt.state]} />
        {attempt.result_lost && (
          <Tag tone="warn" title="Its artifacts are gone since; it is made again">
            result lost
          </Tag>
        )}
        <span className="dim small">
          on {attempt.node}, worker {attempt.worker}, <Ago at={attempt.started_at} />
          {", "}
          {attempt.ended_at ? "took " : "for "}
          <Took from={attempt.started_at} to={attempt.ended_at} />
        </span>
      </div>
      {progress && (
        <div className="row">
          <Bar fraction={fraction} tone="busy" moving label="Progress of the attempt" />
          <span className="small nowrap">
            {phaseWord(progress.phase)} {percent(fraction)}
            {progress.frames > 0 && `, ${progress.frames} frames`}
          </span>
        </div>
      )}
      {attempt.failure && attempt.epoch !== said && (
        <Note
          tone={attempt.state === "lost" ? "odd" : "bad"}
          title={sentence(attempt.failure.message)}
        >
          <span className="small dim">
            <code>{attempt.failure.code}</code> · {attempt.failure.class}
            {attempt.failure.object ? ` · ${attempt.failure.object}` : ""}
          </span>
        </Note>
      )}
      {attempt.usage && (
        <div className="row wrap small dim" style={{ gap: "2px 16px" }}>
          <span>CPU {span(attempt.usage.cpu_ms)}</span>
          <span>wall {span(attempt.usage.wall_ms)}</span>
          <span>memory {bytes(attempt.usage.max_rss)}</span>
          <span>read {bytes(attempt.usage.read)}</span>
          <span>written {bytes(attempt.usage.written)}</span>
        </div>
      )}
      <Log attempt={attempt} />
    </section>
  );
}

function Log({ attempt }: { attempt: Attempt }) {
  const log = useQuery(
    queries.attemptLog(attempt.task, attempt.epoch, attempt.state === "running"),
  );
  const box = useRef<HTMLPreElement>(null);
  const lines = log.data?.lines;
  // The newest line is what people look for.
  useEffect(() => {
    if (lines && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [lines]);
  if (log.isPending) return <Loading rows={4} />;
  if (log.error && !log.data) {
    return <ErrorNote error={log.error} retry={() => void log.refetch()} />;
  }
  return (
    <div className="stack" style={{ gap: 4 }}>
      <div className="row">
        <h3>Log</h3>
        {lines && lines.length > 0 && (
          <>
            <span className="dim small">
              {lines.length >= 200 ? "the last 200 lines" : `${lines.length} lines`}
            </span>
            <Copy value={lines.join("\n")} label="Copy the log" />
          </>
        )}
      </div>
      {lines && lines.length > 0 ? (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls, so the keyboard must reach it
        <pre className="log" ref={box} tabIndex={0} role="log" aria-label="Log">
          {lines.join("\n")}
        </pre>
      ) : (
        <div className="dim small">
          {attempt.state === "running"
            ? "Lines come in when the attempt ends or has something to say."
            : "It said nothing."}
        </div>
      )}
    </div>
  );
}
