// All jobs, newest first, alive.

import { ActionIcon, Button, TextInput } from "@mantine/core";
import { useDebouncedCallback } from "@mantine/hooks";
import { IconPlus, IconSearch, IconX } from "@tabler/icons-react";
import { useInfiniteQuery } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useMemo, useState } from "react";
import type { Schemas } from "../api/client";
import { JOB_FILTERS, type JobFilter, queries } from "../api/queries";
import { type Column, DataTable } from "../components/DataTable";
import { begunAt, JobBadge, JobProgressCell } from "../components/JobBits";
import { Empty, ErrorNote, Loading } from "../components/Messages";
import { Ago, Took } from "../components/Time";
import { splitLocation } from "../format";
import type { Tone } from "../words";

type Job = Schemas["Job"];

const FILTERS: { id: JobFilter; name: string; tone?: Tone }[] = [
  { id: "all", name: "All" },
  { id: "active", name: "Active", tone: "busy" },
  { id: "failed", name: "Failed", tone: "bad" },
  { id: "succeeded", name: "Published", tone: "good" },
  { id: "cancelled", name: "Cancelled" },
];

const COLUMNS: Column<Job>[] = [
  {
    id: "id",
    head: "#",
    className: "num",
    width: 56,
    sort: (job) => job.id,
    cell: (job) => <span className="faint">{job.id}</span>,
  },
  {
    id: "title",
    head: "Title",
    className: "fill",
    sort: (job) => job.title,
    cell: (job) => (
      <div className="clip">
        <Link
          to="/jobs/$id"
          params={{ id: job.id }}
          className="strong"
          style={{ color: "inherit" }}
          tabIndex={-1}
          onClick={(event) => event.stopPropagation()}
        >
          {job.title}
        </Link>
        <span className="faint small" title={job.source}>
          {"  "}
          {splitLocation(job.source).name}
        </span>
      </div>
    ),
  },
  {
    id: "profile",
    head: "Profile",
    sort: (job) => job.profile,
    cell: (job) => <span className="nowrap dim">{job.profile}</span>,
  },
  { id: "state", head: "State", sort: (job) => job.state, cell: (job) => <JobBadge job={job} /> },
  {
    id: "progress",
    head: "Progress",
    width: 300,
    sort: (job) => job.fraction,
    cell: (job) => (
      <div style={{ width: 290 }}>
        <JobProgressCell job={job} />
      </div>
    ),
  },
  {
    id: "by",
    head: "By",
    sort: (job) => job.submitted_by,
    cell: (job) => <span className="dim nowrap">{job.submitted_by}</span>,
  },
  {
    id: "submitted",
    head: "Submitted",
    className: "num",
    sort: (job) => job.created_at,
    cell: (job) => <Ago at={job.created_at} />,
  },
  {
    id: "took",
    head: "Took",
    className: "num",
    width: 92,
    sort: (job) => {
      const begun = begunAt(job);
      if (!begun) return -1;
      return (job.ended_at ? Date.parse(job.ended_at) : Date.now()) - Date.parse(begun);
    },
    cell: (job) => <Took from={begunAt(job)} to={job.ended_at} />,
  },
];

export function JobsPage() {
  const search = useSearch({ from: "/shell/jobs" });
  const filter = search.state ?? "all";
  const navigate = useNavigate();
  const list = useInfiniteQuery(queries.jobs(filter, search.text ?? ""));
  const jobs = useMemo(() => list.data?.pages.flatMap((page) => page.items) ?? [], [list.data]);
  const counts = list.data?.pages[0]?.counts;
  const sum = (id: JobFilter): number | undefined => {
    if (!counts) return undefined;
    const states: readonly string[] = id === "all" ? Object.keys(counts) : JOB_FILTERS[id];
    return states.reduce((n, state) => n + (counts[state] ?? 0), 0);
  };

  return (
    <div className="page">
      <div className="page-head">
        <h1>Jobs</h1>
        <SearchText value={search.text ?? ""} />
        <Button
          leftSection={<IconPlus size={15} />}
          renderRoot={(props) => <Link to="/ingest" {...props} />}
        >
          Ingest
        </Button>
      </div>
      <div className="filters" style={{ marginBottom: 10 }}>
        {FILTERS.map(({ id, name, tone }) => {
          const n = sum(id);
          return (
            <button
              key={id}
              type="button"
              className="filter"
              aria-pressed={filter === id}
              onClick={() =>
                void navigate({
                  to: "/jobs",
                  search: { ...search, state: id === "all" ? undefined : id },
                })
              }
            >
              {tone && <span className="dot" data-tone={tone} />}
              {name}
              {n !== undefined && <span className="n">{n}</span>}
            </button>
          );
        })}
      </div>
      {list.error && !list.data && (
        <ErrorNote error={list.error} retry={() => void list.refetch()} />
      )}
      {!(list.error && !list.data) && (
        <div className="panel">
          {list.isPending ? (
            <Loading rows={8} />
          ) : jobs.length > 0 ? (
            <DataTable
              label="Jobs"
              rows={jobs}
              columns={COLUMNS}
              rowKey={(job) => String(job.id)}
              onOpen={(job) => void navigate({ to: "/jobs/$id", params: { id: job.id } })}
              card={(job) => <JobCard job={job} />}
            />
          ) : (
            <NoJobs any={(sum("all") ?? 0) > 0} />
          )}
        </div>
      )}
      {list.hasNextPage && (
        <div style={{ marginTop: 10, textAlign: "center" }}>
          <Button
            variant="default"
            loading={list.isFetchingNextPage}
            onClick={() => void list.fetchNextPage()}
          >
            Older jobs
          </Button>
        </div>
      )}
    </div>
  );
}

function JobCard({ job }: { job: Job }) {
  return (
    <>
      <div className="row">
        <span className="strong clip" style={{ flex: 1 }}>
          {job.title}
        </span>
        <JobBadge job={job} />
      </div>
      <div className="row small dim" style={{ marginBottom: 4 }}>
        <span className="clip" style={{ flex: 1 }}>
          {job.profile} · {splitLocation(job.source).name}
        </span>
        <Ago at={job.created_at} />
      </div>
      <JobProgressCell job={job} />
    </>
  );
}

function NoJobs({ any }: { any: boolean }) {
  return any ? (
    <Empty title="No job fits">
      <p>
        <Link to="/jobs">Show all jobs</Link>
      </p>
    </Empty>
  ) : (
    <Empty title="No job yet">
      <p>Choose a file on a source share, and a profile that says what to make of it.</p>
      <Button
        leftSection={<IconPlus size={15} />}
        renderRoot={(props) => <Link to="/ingest" {...props} />}
      >
        Start an ingest
      </Button>
    </Empty>
  );
}

/** The text follows the address, and the address follows the typing a moment later. */
function SearchText({ value }: { value: string }) {
  const navigate = useNavigate();
  const [typed, setTyped] = useState(value);
  const go = useDebouncedCallback((text: string) => {
    void navigate({
      to: "/jobs",
      search: (now) => ({ ...now, text: text || undefined }),
      replace: true,
    });
  }, 250);
  const change = (text: string) => {
    setTyped(text);
    go(text);
  };
  return (
    <TextInput
      data-search
      aria-label="Find by title or file"
      placeholder="Title or file"
      leftSection={<IconSearch size={14} />}
      rightSection={
        typed && (
          <ActionIcon
            variant="subtle"
            color="gray"
            size="xs"
            aria-label="Clear"
            onClick={() => change("")}
          >
            <IconX size={13} />
          </ActionIcon>
        )
      }
      value={typed}
      onChange={(event) => change(event.currentTarget.value)}
      onKeyDown={(event) => {
        if (event.key === "Escape") change("");
        if (event.key === "ArrowDown") {
          document.querySelector<HTMLElement>("tr[data-row]")?.focus();
        }
      }}
      w={220}
    />
  );
}
