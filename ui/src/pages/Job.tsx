// One job: how it stands, what it did, what came out of it.

import { Button, Menu, Modal, Tabs } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import {
  IconArrowsSort,
  IconPlayerPause,
  IconPlayerPlay,
  IconPlayerStop,
  IconReload,
} from "@tabler/icons-react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { useEffect, useState } from "react";
import { ApiError, api, messageOf, type Schemas } from "../api/client";
import { useJobProgress, watchJob } from "../api/live";
import { queries } from "../api/queries";
import { Copy } from "../components/Copy";
import { begunAt, fractionOf, isMoving, JobBadge, progressWords } from "../components/JobBits";
import { Empty, ErrorNote, Loading, Note } from "../components/Messages";
import { Bar } from "../components/State";
import { Ago, Took } from "../components/Time";
import { count, percent } from "../format";
import { JOB_TABS, type JobTab } from "../router";
import { adviceFor, JOB, sentence } from "../words";
import { Files } from "./job/Files";
import { POSTER, previewFile, Result } from "./job/Result";
import { Findings, Source } from "./job/Source";
import { Stages } from "./job/Stages";
import { TaskDrawer } from "./job/TaskDrawer";
import { Tasks } from "./job/Tasks";

type JobDetail = Schemas["JobDetail"];

export function JobPage() {
  const { id } = useParams({ from: "/shell/jobs/$id" });
  const search = useSearch({ from: "/shell/jobs/$id" });
  const navigate = useNavigate();
  const query = useQuery(queries.job(id));
  useEffect(() => watchJob(id), [id]);
  const tab = search.tab ?? "overview";
  const go = (next: { tab?: JobTab; task?: number }) =>
    void navigate({
      to: "/jobs/$id",
      params: { id },
      search: { ...search, ...next },
      replace: next.tab !== undefined,
      resetScroll: false,
    });
  const openTask = (task: number) => go({ task });

  if (!query.data) {
    const missing = query.error instanceof ApiError && query.error.status === 404;
    return (
      <div className="page">
        <div className="page-head">
          <h1>Job {Number.isFinite(id) ? id : ""}</h1>
        </div>
        {missing || !Number.isFinite(id) ? (
          <div className="panel">
            <Empty title="There is no such job">
              <p>
                <Link to="/jobs">Show all jobs</Link>
              </p>
            </Empty>
          </div>
        ) : query.error ? (
          <ErrorNote error={query.error} retry={() => void query.refetch()} />
        ) : (
          <div className="panel">
            <Loading rows={10} />
          </div>
        )}
      </div>
    );
  }
  const detail = query.data;
  const files = detail.publications.reduce((n, p) => n + p.files.length, 0);
  const names: Record<JobTab, string> = {
    overview: "Overview",
    tasks: `Tasks ${detail.tasks.length}`,
    source: "Source",
    files: files ? `Files ${files}` : "Files",
    plan: "Plan",
  };

  return (
    <div className="page">
      <div className="panel" style={{ marginBottom: 12 }}>
        <Head detail={detail} />
        <Failure detail={detail} openTask={openTask} />
        <Waiting job={detail.job} />
      </div>
      <Tabs
        value={tab}
        onChange={(value) => go({ tab: value as JobTab, task: undefined })}
        variant="default"
      >
        <Tabs.List style={{ marginBottom: 12, flexWrap: "nowrap", overflowX: "auto" }}>
          {JOB_TABS.map((name) => (
            <Tabs.Tab key={name} value={name} py={7} px={12}>
              {names[name]}
            </Tabs.Tab>
          ))}
        </Tabs.List>
        <Tabs.Panel value="overview">
          <div className="job-grid" data-done={detail.publications.length > 0 || undefined}>
            <div className="stack">
              <Stages detail={detail} openTask={openTask} />
              <Findings findings={detail.findings} />
            </div>
            <div className="stack">
              <Result detail={detail} />
            </div>
          </div>
        </Tabs.Panel>
        <Tabs.Panel value="tasks">
          <Tasks detail={detail} openTask={openTask} />
        </Tabs.Panel>
        <Tabs.Panel value="source">
          <div className="stack">
            <Source detail={detail} />
            <Findings findings={detail.findings} />
          </div>
        </Tabs.Panel>
        <Tabs.Panel value="files">
          <Files publications={detail.publications} job={detail.job} />
        </Tabs.Panel>
        <Tabs.Panel value="plan">
          <Plan detail={detail} />
        </Tabs.Panel>
      </Tabs>
      <TaskDrawer
        detail={detail}
        task={detail.tasks.find((task) => task.id === search.task)}
        onClose={() => go({ task: undefined })}
        openTask={openTask}
      />
    </div>
  );
}

function Head({ detail }: { detail: JobDetail }) {
  const { job } = detail;
  const live = useJobProgress(job.id);
  const fraction = fractionOf(job, live);
  const word = JOB[job.state];
  const words = job.state === "failed" ? "" : progressWords(job, live);
  const poster = previewFile(detail.publications, POSTER);
  return (
    <>
      <div className="job-head">
        {poster && <img className="job-poster" src={poster} alt="" />}
        <div className="job-main">
          <div className="job-title">
            <h1 className="break">{job.title}</h1>
            <JobBadge job={job} />
          </div>
          <div className="job-facts">
            <span>Job {job.id}</span>
            <span className="row break" style={{ gap: 3 }}>
              {job.source}
              <Copy value={job.source} label="Copy the source's path" />
            </span>
            <span>
              <Link to="/profiles" search={{ name: job.profile }}>
                {job.profile}
              </Link>
            </span>
            <span>
              by {job.submitted_by}, <Ago at={job.created_at} />
            </span>
            {begunAt(job) && (
              <span>
                {job.ended_at ? "took " : "runs for "}
                <Took from={begunAt(job)} to={job.ended_at} />
              </span>
            )}
            {job.band !== 5 && <span>priority {job.band}</span>}
          </div>
        </div>
        <Commands job={job} />
      </div>
      {job.state !== "succeeded" && (
        <div className="job-progress">
          <Bar
            big
            fraction={fraction}
            tone={word.tone}
            moving={word.moving}
            label="Progress of the job"
          />
          <span className="strong" data-testid="job-percent">
            {percent(fraction)}
          </span>
          <span className="dim small nowrap">
            {job.planned
              ? `${job.tasks.done} of ${count(job.tasks.total, "task")}`
              : isMoving(job)
                ? "not planned yet"
                : "ended before it was planned"}
            {words && ` · ${words}`}
          </span>
        </div>
      )}
    </>
  );
}

function Commands({ job }: { job: Schemas["Job"] }) {
  const client = useQueryClient();
  const me = useQuery(queries.me()).data;
  const [asking, setAsking] = useState<"cancel" | "retry">();
  const onSuccess = () => {
    setAsking(undefined);
    void client.invalidateQueries({ queryKey: ["job", job.id] });
    void client.invalidateQueries({ queryKey: ["jobs"] });
  };
  const command = useMutation({
    mutationFn: (what: "cancel" | "retry") =>
      what === "cancel" ? api.cancel(job.id) : api.retry(job.id),
    onSuccess,
  });
  // These take nothing away, so nobody is asked whether he means it.
  const gentle = useMutation({
    mutationFn: (what: "pause" | "resume" | number): Promise<unknown> =>
      what === "pause"
        ? api.pause(job.id)
        : what === "resume"
          ? api.resume(job.id)
          : api.setPriority(job.id, what),
    onSuccess,
    onError: (error) =>
      notifications.show({ color: "red", title: "Not done", message: messageOf(error) }),
  });
  const close = () => {
    setAsking(undefined);
    command.reset();
  };
  const cancellable =
    isMoving(job) ||
    job.state === "waiting_gate" ||
    job.state === "paused" ||
    job.state === "failed";
  if (me?.role === "viewer" || !(cancellable || job.state === "failed")) return null;
  return (
    <div className="row wrap">
      {job.state === "paused" && (
        <Button
          leftSection={<IconPlayerPlay size={14} />}
          loading={gentle.isPending}
          onClick={() => gentle.mutate("resume")}
        >
          Resume
        </Button>
      )}
      {isMoving(job) && job.state !== "cancelling" && (
        <>
          <Menu position="bottom-end">
            <Menu.Target>
              <Button variant="default" leftSection={<IconArrowsSort size={14} />}>
                Priority {job.band}
              </Button>
            </Menu.Target>
            <Menu.Dropdown>
              {PRIORITIES.map(([band, words]) => (
                <Menu.Item
                  key={band}
                  onClick={() => gentle.mutate(band)}
                  disabled={band === job.band}
                >
                  {band} {words && <span className="dim">{words}</span>}
                </Menu.Item>
              ))}
            </Menu.Dropdown>
          </Menu>
          <Button
            variant="default"
            leftSection={<IconPlayerPause size={14} />}
            loading={gentle.isPending}
            onClick={() => gentle.mutate("pause")}
          >
            Pause
          </Button>
        </>
      )}
      {job.state === "failed" && (
        <Button leftSection={<IconReload size={14} />} onClick={() => setAsking("retry")}>
          Retry
        </Button>
      )}
      {cancellable && job.state !== "cancelling" && (
        <Button
          variant="default"
          leftSection={<IconPlayerStop size={14} />}
          onClick={() => setAsking("cancel")}
        >
          Cancel
        </Button>
      )}
      <Modal
        opened={asking !== undefined}
        onClose={close}
        title={asking === "retry" ? "Retry what failed?" : `Cancel “${job.title}”?`}
      >
        <div className="stack">
          <p style={{ margin: 0 }}>
            {asking === "retry"
              ? "The failed tasks run again with a clean record. What is done stays done."
              : "What runs is stopped and nothing more is published. What was published stays. Encoded chunks stay in the cache, so a new ingest of the same file goes on from there."}
          </p>
          {command.error && <ErrorNote error={command.error} />}
          <div className="row" style={{ justifyContent: "flex-end" }}>
            <Button variant="default" onClick={close}>
              {asking === "retry" ? "Not now" : "Let it run"}
            </Button>
            <Button
              color={asking === "retry" ? undefined : "red"}
              loading={command.isPending}
              onClick={() => asking && command.mutate(asking)}
            >
              {asking === "retry" ? "Retry" : "Cancel the job"}
            </Button>
          </div>
        </div>
      </Modal>
    </div>
  );
}

/** Priorities from first to last, with words for those that stand for something. */
const PRIORITIES: [number, string][] = [
  [9, "before all others"],
  [8, ""],
  [7, ""],
  [6, ""],
  [5, "as usual"],
  [4, ""],
  [3, ""],
  [2, ""],
  [1, ""],
  [0, "when nothing else is to be done"],
];

/** Why nothing of it runs, and what would mend that. */
function Waiting({ job }: { job: Schemas["Job"] }) {
  const live = useJobProgress(job.id);
  const stands =
    job.state === "paused" ||
    (isMoving(job) && job.tasks.running === 0 && (live?.running ?? 0) === 0);
  const why = useQuery({ ...queries.whyJob(job.id), enabled: stands });
  if (!stands || !why.data) return null;
  return (
    <div className="panel-body" style={{ paddingTop: 0 }}>
      <Note tone={job.state === "paused" ? "warn" : "idle"} role="status" title={why.data.because}>
        <span data-testid="mend">{why.data.mend}</span>
      </Note>
    </div>
  );
}

/** What went wrong, in words, and what to do. */
function Failure({ detail, openTask }: { detail: JobDetail; openTask: (task: number) => void }) {
  const { job, tasks } = detail;
  if (!job.failure || job.state === "succeeded") return null;
  const failed = tasks.filter((t) => t.state === "failed" || t.state === "quarantined");
  return (
    <div className="panel-body" style={{ paddingTop: 0 }}>
      <Note tone="bad" role="alert" title={sentence(job.failure.message)}>
        <div data-testid="advice">{adviceFor(job.failure)}</div>
        <div className="row wrap small dim" style={{ marginTop: 3 }}>
          {failed.slice(0, 5).map((task) => (
            <a
              key={task.id}
              href={`?task=${task.id}`}
              onClick={(event) => {
                event.preventDefault();
                openTask(task.id);
              }}
            >
              Task {task.name} and its log
            </a>
          ))}
          {failed.length > 5 && <span>and {failed.length - 5} more</span>}
          {job.failure.object && <span className="break">{job.failure.object}</span>}
          <code>{job.failure.code}</code>
        </div>
      </Note>
    </div>
  );
}

function Plan({ detail }: { detail: JobDetail }) {
  const plan = useQuery({
    ...queries.plan(detail.job.id),
    enabled: detail.job.planned,
  });
  return (
    <section className="panel">
      <div className="panel-head">
        <h2>What is made, from what, and why</h2>
        {plan.data && <Copy value={plan.data.text} label="Copy the plan" />}
      </div>
      {!detail.job.planned ? (
        <Empty title="There is no plan yet">
          <p>The plan is made from what intake finds in the source.</p>
        </Empty>
      ) : plan.isPending ? (
        <Loading rows={8} />
      ) : plan.error && !plan.data ? (
        <div className="panel-body">
          <ErrorNote error={plan.error} retry={() => void plan.refetch()} />
        </div>
      ) : (
        <div className="panel-body">
          <pre className="plan-text">{plan.data?.text}</pre>
        </div>
      )}
    </section>
  );
}
