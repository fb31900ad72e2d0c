// All tasks of a job with their last attempt.

import { Select, TextInput } from "@mantine/core";
import { IconSearch } from "@tabler/icons-react";
import { useMemo, useState } from "react";
import type { Schemas } from "../../api/client";
import { useAttemptProgress } from "../../api/live";
import { type Column, DataTable } from "../../components/DataTable";
import { Empty } from "../../components/Messages";
import { Badge, Bar, Tag } from "../../components/State";
import { Took } from "../../components/Time";
import { bytes, percent, span } from "../../format";
import { kindWord, phaseWord, TASK } from "../../words";
import { taskFraction } from "./Stages";

type Task = Schemas["Task"];

export function Tasks({
  detail,
  openTask,
}: {
  detail: Schemas["JobDetail"];
  openTask: (task: number) => void;
}) {
  const live = useAttemptProgress();
  const [text, setText] = useState("");
  const [state, setState] = useState("");
  const states = [...new Set(detail.tasks.map((task) => task.state))];
  const rows = useMemo(() => {
    const wanted = text.trim().toLowerCase();
    return detail.tasks.filter(
      (task) =>
        (!state || task.state === state) &&
        (!wanted || task.name.toLowerCase().includes(wanted) || task.kind.includes(wanted)),
    );
  }, [detail.tasks, text, state]);
  const place = useMemo(
    () => new Map(detail.tasks.map((task, index) => [task.id, index])),
    [detail.tasks],
  );

  const usage = useMemo(
    () => new Map(detail.attempts.map((a) => [`${a.task}/${a.epoch}`, a.usage ?? undefined])),
    [detail.attempts],
  );
  const what = (task: Task) => (
    <What
      task={task}
      fraction={taskFraction(task, live)}
      live={live}
      usage={usage.get(`${task.id}/${task.epoch}`)}
    />
  );

  const columns: Column<Task>[] = [
    {
      id: "name",
      head: "Task",
      sort: (task) => place.get(task.id) ?? 0,
      cell: (task) => <span className="strong nowrap">{task.name}</span>,
    },
    {
      id: "kind",
      head: "Kind",
      sort: (task) => task.kind,
      cell: (task) => <span className="dim nowrap">{kindWord(task.kind)}</span>,
    },
    {
      id: "state",
      head: "State",
      sort: (task) => task.state,
      cell: (task) => (
        <span className="row nowrap">
          <Badge word={TASK[task.state]} />
          {task.cached && <Tag title="The cache had all its outputs">cached</Tag>}
        </span>
      ),
    },
    {
      id: "what",
      head: "",
      className: "fill",
      cell: what,
    },
    {
      id: "attempts",
      head: "Attempts",
      className: "num",
      sort: (task) => task.epoch,
      cell: (task) => task.epoch || <span className="faint">–</span>,
    },
    {
      id: "node",
      head: "Node",
      sort: (task) => task.node ?? "",
      cell: (task) => <span className="dim nowrap">{task.node ?? ""}</span>,
    },
    {
      id: "estimate",
      head: "Estimate",
      className: "num",
      sort: (task) => task.estimate_ms,
      cell: (task) => (
        <span className="dim" title="On one core of a usual node">
          {span(task.estimate_ms)}
        </span>
      ),
    },
    {
      id: "took",
      head: "Took",
      className: "num",
      sort: (task) =>
        task.started_at
          ? (task.ended_at ? Date.parse(task.ended_at) : Date.now()) - Date.parse(task.started_at)
          : -1,
      cell: (task) =>
        task.state === "running" || task.ended_at ? (
          <Took from={task.started_at} to={task.ended_at} />
        ) : (
          <span className="faint">–</span>
        ),
    },
  ];

  return (
    <section className="panel">
      <div className="panel-head">
        <TextInput
          data-search
          aria-label="Find a task"
          placeholder="Find a task"
          w={190}
          leftSection={<IconSearch size={13} />}
          value={text}
          onChange={(event) => setText(event.currentTarget.value)}
        />
        <Select
          aria-label="State"
          w={140}
          value={state}
          onChange={(value) => setState(value ?? "")}
          data={[
            { value: "", label: "Any state" },
            ...states.map((s) => ({ value: s, label: TASK[s].text })),
          ]}
        />
        <span className="push dim small">
          {rows.length === detail.tasks.length ? "" : `${rows.length} of ${detail.tasks.length}`}
        </span>
      </div>
      {rows.length === 0 ? (
        <Empty title="No task fits" />
      ) : (
        <DataTable
          label="Tasks"
          rows={rows}
          columns={columns}
          rowKey={(task) => String(task.id)}
          onOpen={(task) => openTask(task.id)}
          card={(task) => (
            <>
              <div className="row">
                <span className="strong clip">{task.name}</span>
                <span className="push row">
                  {task.cached && <Tag>cached</Tag>}
                  <Badge word={TASK[task.state]} />
                </span>
              </div>
              <div className="row small dim">
                <div style={{ flex: 1, minWidth: 0 }}>{what(task)}</div>
                {task.ended_at && <Took from={task.started_at} to={task.ended_at} />}
              </div>
            </>
          )}
        />
      )}
    </section>
  );
}

function What({
  task,
  fraction,
  live,
  usage,
}: {
  task: Task;
  fraction: number | undefined;
  live: ReadonlyMap<string, Schemas["Progress"]>;
  usage: Schemas["Usage"] | undefined;
}) {
  if (fraction !== undefined) {
    const progress = live.get(`${task.id}/${task.epoch}`) ?? task.progress;
    return (
      <div className="row" style={{ maxWidth: 380 }}>
        <Bar fraction={fraction} tone="busy" moving label={`Progress of ${task.name}`} />
        <span className="small dim nowrap" style={{ minWidth: 96 }}>
          {progress ? `${phaseWord(progress.phase)} ` : ""}
          {percent(fraction)}
        </span>
      </div>
    );
  }
  if (task.state === "done") {
    return usage ? (
      <div className="clip small faint">
        CPU {span(usage.cpu_ms)} · memory {bytes(usage.max_rss)} · written {bytes(usage.written)}
      </div>
    ) : null;
  }
  const words = task.failure?.message ?? task.waits_for ?? "";
  return (
    <div className="clip small dim" title={words}>
      {words}
    </div>
  );
}
