// Choose files on a source share, say what to make of them, start.

import {
  ActionIcon,
  Button,
  Checkbox,
  SegmentedControl,
  Select,
  Switch,
  TextInput,
} from "@mantine/core";
import {
  IconChevronRight,
  IconFile,
  IconFolder,
  IconLink,
  IconMovie,
  IconPlayerPlay,
  IconSearch,
  IconSquare,
  IconSquareCheckFilled,
  IconX,
} from "@tabler/icons-react";
import { useInfiniteQuery, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { Fragment, useEffect, useMemo, useRef, useState } from "react";
import { ApiError, api, type Schemas } from "../api/client";
import { useConnection } from "../api/live";
import { queries } from "../api/queries";
import { type Column, DataTable } from "../components/DataTable";
import { Empty, ErrorNote, Loading, Note } from "../components/Messages";
import { Badge, Tag } from "../components/State";
import { bytes, count, short, splitLocation } from "../format";
import { SHARE, sentence } from "../words";

type Entry = Schemas["Entry"];
type Share = Schemas["Share"];

export function IngestPage() {
  const search = useSearch({ from: "/shell/ingest" });
  const shares = useQuery(queries.shares());
  const sources = shares.data?.items.filter((share) => share.role === "source") ?? [];
  const share = sources.find((s) => s.name === search.share) ?? sources[0];
  const [picked, setPicked] = useState<ReadonlyMap<string, Entry>>(new Map());
  const toggle = (entry: Entry) => {
    const { location } = entry;
    if (!location) return;
    setPicked((now) => {
      const next = new Map(now);
      if (!next.delete(location)) next.set(location, entry);
      return next;
    });
  };

  return (
    <div className="page">
      <div className="page-head">
        <h1>Ingest</h1>
      </div>
      {shares.error && !shares.data ? (
        <ErrorNote error={shares.error} retry={() => void shares.refetch()} />
      ) : shares.isPending ? (
        <div className="panel">
          <Loading rows={8} />
        </div>
      ) : !share ? (
        <div className="panel">
          <Empty title="There is no source share">
            <p>
              Name the folder where deliveries arrive in <code>trix.toml</code>: a{" "}
              <code>[[share]]</code> with the role <code>source</code>.
            </p>
          </Empty>
        </div>
      ) : (
        <div className="ingest">
          <Browser
            key={share.name}
            share={share}
            sources={sources}
            path={
              search.share === undefined || search.share === share.name ? (search.path ?? "") : ""
            }
            picked={picked}
            toggle={toggle}
            pickAll={(entries, on) =>
              setPicked((now) => {
                const next = new Map(now);
                for (const entry of entries) {
                  if (on && entry.location) next.set(entry.location, entry);
                  else if (entry.location) next.delete(entry.location);
                }
                return next;
              })
            }
          />
          <Order picked={picked} remove={toggle} clear={() => setPicked(new Map())} />
        </div>
      )}
    </div>
  );
}

const usable = (entry: Entry): boolean =>
  entry.kind === "file" && !entry.unusable && entry.location != null;

function Browser({
  share,
  sources,
  path,
  picked,
  toggle,
  pickAll,
}: {
  share: Share;
  sources: Share[];
  path: string;
  picked: ReadonlyMap<string, Entry>;
  toggle: (entry: Entry) => void;
  pickAll: (entries: Entry[], on: boolean) => void;
}) {
  const navigate = useNavigate();
  const [text, setText] = useState("");
  const [all, setAll] = useState(false);
  const list = useInfiniteQuery(queries.entries(share.name, path));
  const entries = useMemo(() => list.data?.pages.flatMap((page) => page.items) ?? [], [list.data]);
  const shown = useMemo(() => {
    const wanted = text.trim().toLowerCase();
    return entries.filter(
      (entry) =>
        (all || entry.kind === "folder" || entry.media) &&
        (!wanted || entry.name.toLowerCase().includes(wanted)),
    );
  }, [entries, text, all]);
  const hidden = entries.filter((entry) => entry.kind !== "folder" && !entry.media).length;
  const files = shown.filter(usable);
  const on = files.filter((entry) => picked.has(entry.location!)).length;

  const go = (to: string) => {
    setText("");
    void navigate({ to: "/ingest", search: { share: share.name, path: to || undefined } });
  };
  const open = (entry: Entry) => {
    // A folder whose name can't be written down can't be opened either.
    if (entry.kind === "folder" && entry.location) go(pathOf(entry.location));
    else if (usable(entry)) toggle(entry);
  };

  const columns: Column<Entry>[] = [
    {
      id: "pick",
      width: 34,
      head: (
        <Checkbox
          size="xs"
          aria-label="Choose all files shown"
          disabled={files.length === 0}
          checked={on > 0 && on === files.length}
          indeterminate={on > 0 && on < files.length}
          onChange={() => pickAll(files, on < files.length)}
        />
      ),
      cell: (entry) =>
        entry.kind === "file" && (
          <Checkbox
            size="xs"
            aria-label={`Choose ${entry.name}`}
            tabIndex={-1}
            disabled={!usable(entry)}
            checked={entry.location != null && picked.has(entry.location)}
            onClick={(event) => event.stopPropagation()}
            onChange={() => toggle(entry)}
          />
        ),
    },
    {
      id: "name",
      head: "Name",
      className: "fill",
      sort: (entry) => `${entry.kind === "folder" ? 0 : 1}${entry.name}`,
      cell: (entry) => <EntryName entry={entry} />,
    },
    {
      id: "size",
      head: "Size",
      className: "num",
      sort: (entry) => entry.size ?? -1,
      cell: (entry) => (entry.size != null ? bytes(entry.size) : ""),
    },
    {
      id: "modified",
      head: "Modified",
      className: "num",
      sort: (entry) => entry.modified_at ?? "",
      cell: (entry) =>
        entry.modified_at && <span className="dim">{short(new Date(entry.modified_at))}</span>,
    },
  ];

  return (
    <section className="panel">
      <div className="panel-head wrap">
        {sources.length > 1 ? (
          <Select
            aria-label="Source share"
            w={170}
            data={sources.map((s) => ({ value: s.name, label: s.name }))}
            value={share.name}
            onChange={(value) =>
              value && void navigate({ to: "/ingest", search: { share: value } })
            }
          />
        ) : null}
        <Crumbs share={share.name} path={path} go={go} />
        <div className="row push">
          <Switch
            size="xs"
            label="All files"
            checked={all}
            onChange={(event) => setAll(event.currentTarget.checked)}
          />
          <TextInput
            data-search
            aria-label="Find in this folder"
            placeholder="Find"
            w={130}
            leftSection={<IconSearch size={13} />}
            value={text}
            onChange={(event) => setText(event.currentTarget.value)}
            onKeyDown={(event) => event.key === "Escape" && setText("")}
          />
        </div>
      </div>
      {share.state !== "ok" && share.state !== "slow" && (
        <div className="panel-body" style={{ paddingBottom: 0 }}>
          <Note
            tone="warn"
            role="alert"
            title={
              <>
                The share is not in order: <Badge word={SHARE[share.state]} />
              </>
            }
          >
            {share.reason ? `${sentence(share.reason)} ` : ""}
            New work from it is refused until it is back; all else goes on. It is looked at by
            itself.
          </Note>
        </div>
      )}
      {list.error && !list.data ? (
        <div className="panel-body">
          <ErrorNote error={list.error} retry={() => void list.refetch()} />
        </div>
      ) : list.isPending ? (
        <Loading rows={9} />
      ) : shown.length > 0 ? (
        <DataTable
          label={`Files in ${share.name}:${path}`}
          rows={shown}
          columns={columns}
          rowKey={(entry) => entry.name}
          onOpen={open}
          selected={(entry) => entry.location != null && picked.has(entry.location)}
          off={(entry) => (entry.kind === "folder" ? !entry.location : !usable(entry))}
          card={(entry) => (
            <div className="row">
              {entry.kind === "file" &&
                (entry.location != null && picked.has(entry.location) ? (
                  <IconSquareCheckFilled size={18} className="picked" />
                ) : (
                  <IconSquare size={18} stroke={1.5} className="faint" />
                ))}
              <div style={{ flex: 1, minWidth: 0 }}>
                <EntryName entry={entry} />
              </div>
              <span className="small dim nowrap">
                {entry.size != null ? bytes(entry.size) : ""}
              </span>
            </div>
          )}
        />
      ) : (
        <Empty title={entries.length === 0 ? "This folder is empty" : "Nothing fits"}>
          {entries.length > 0 && (
            <p>
              {text
                ? "No name in this folder has that text."
                : `${count(hidden, "file")} here ${hidden === 1 ? "does" : "do"} not look like media.`}
            </p>
          )}
          {entries.length > 0 && !all && !text && (
            <Button variant="default" onClick={() => setAll(true)}>
              Show all files
            </Button>
          )}
        </Empty>
      )}
      {list.hasNextPage && (
        <div className="panel-body" style={{ textAlign: "center" }}>
          <Button
            variant="default"
            loading={list.isFetchingNextPage}
            onClick={() => void list.fetchNextPage()}
          >
            More files
          </Button>
        </div>
      )}
    </section>
  );
}

function EntryName({ entry }: { entry: Entry }) {
  const Icon =
    entry.kind === "folder"
      ? IconFolder
      : entry.kind === "other"
        ? IconLink
        : entry.media
          ? IconMovie
          : IconFile;
  return (
    <div className="entry-name">
      <Icon size={16} stroke={1.6} />
      <span className={entry.kind === "folder" ? "clip strong" : "clip"} title={entry.name}>
        {entry.name}
      </span>
      {entry.sidecars.map((sidecar) => (
        <Tag key={sidecar} tone="good" title={`${sidecar} is compared with what is read`}>
          {sidecar.slice(sidecar.lastIndexOf(".") + 1)}
        </Tag>
      ))}
      {entry.unusable && (
        <span className="small clip" title={entry.unusable}>
          {entry.unusable}
        </span>
      )}
    </div>
  );
}

function Crumbs({ share, path, go }: { share: string; path: string; go: (path: string) => void }) {
  const parts = path ? path.split("/") : [];
  return (
    <nav className="crumbs" aria-label="Folder">
      <button
        type="button"
        className="crumb clip"
        aria-current={parts.length === 0 ? "true" : undefined}
        onClick={() => go("")}
      >
        {share}
      </button>
      {parts.map((part, index) => {
        const to = parts.slice(0, index + 1).join("/");
        return (
          <Fragment key={to}>
            <IconChevronRight size={13} className="faint" />
            <button
              type="button"
              className="crumb clip"
              aria-current={index === parts.length - 1 ? "true" : undefined}
              onClick={() => go(to)}
            >
              {part}
            </button>
          </Fragment>
        );
      })}
    </nav>
  );
}

/** What became of one file of the order. */
type Outcome =
  | { state: "sending" }
  | { state: "waiting"; error: ApiError }
  | { state: "made"; job: Schemas["Job"] }
  | { state: "refused"; error: unknown };

/** Wait between two tries to send while the server or its database is away. */
const AGAIN = 2_000;

function Order({
  picked,
  remove,
  clear,
}: {
  picked: ReadonlyMap<string, Entry>;
  remove: (entry: Entry) => void;
  clear: () => void;
}) {
  const navigate = useNavigate();
  const client = useQueryClient();
  const profiles = useQuery(queries.profiles());
  const connection = useConnection();
  const [chosen, setChosen] = useState<string>();
  const [title, setTitle] = useState("");
  const [band, setBand] = useState("5");
  const [outcomes, setOutcomes] = useState<ReadonlyMap<string, Outcome>>(new Map());
  const [busy, setBusy] = useState(false);
  // One key for each request as it is worded: a repetition after an outage gives the same job.
  const keys = useRef(new Map<string, string>());
  const stopped = useRef(false);
  useEffect(() => {
    stopped.current = false;
    return () => {
      stopped.current = true;
    };
  }, []);

  const files = [...picked.values()];
  const one = files.length === 1 ? files[0] : undefined;
  const items = profiles.data?.items ?? [];
  const profile =
    items.find((p) => p.name === chosen) ??
    items.find((p) => p.name === "archive-and-ladder") ??
    items[0];
  const total = files.reduce((n, entry) => n + (entry.size ?? 0), 0);

  const note = (location: string, outcome: Outcome) =>
    setOutcomes((now) => new Map(now).set(location, outcome));

  /** Sends until the server has said yes or no. */
  const send = async (body: Schemas["NewJob"]): Promise<Schemas["Job"] | undefined> => {
    const worded = JSON.stringify(body);
    const key = keys.current.get(worded) ?? crypto.randomUUID();
    keys.current.set(worded, key);
    for (;;) {
      try {
        const job = await api.submit(body, key);
        keys.current.delete(worded);
        note(body.source, { state: "made", job });
        return job;
      } catch (error) {
        if (!(error instanceof ApiError && error.outage)) {
          keys.current.delete(worded);
          note(body.source, { state: "refused", error });
          return undefined;
        }
        note(body.source, { state: "waiting", error });
        await new Promise((done) => setTimeout(done, AGAIN));
        if (stopped.current) return undefined;
      }
    }
  };

  const start = async () => {
    if (!profile) return;
    stopped.current = false;
    setBusy(true);
    const made: Schemas["Job"][] = [];
    for (const entry of files) {
      const source = entry.location!;
      note(source, { state: "sending" });
      const job = await send({
        source,
        profile: profile.name,
        title: one && title.trim() ? title.trim() : null,
        band: Number(band),
      });
      if (stopped.current) break;
      if (job) {
        made.push(job);
        // What was accepted is no more part of the order.
        if (files.length > 1) remove(entry);
      }
    }
    setBusy(false);
    void client.invalidateQueries({ queryKey: ["jobs"] });
    const [first] = made;
    if (first && files.length === 1) {
      void navigate({ to: "/jobs/$id", params: { id: first.id } });
    }
  };

  const made = [...outcomes.values()].filter((o) => o.state === "made");
  const waiting = [...outcomes.values()].find((o) => o.state === "waiting");

  return (
    <section className="panel order" aria-label="What to start">
      <div className="panel-head">
        <h2>{files.length === 0 ? "What to start" : count(files.length, "file")}</h2>
        {files.length > 0 && <span className="dim small">{bytes(total)}</span>}
        {files.length > 1 && (
          <Button size="compact-xs" variant="subtle" color="gray" disabled={busy} onClick={clear}>
            Clear
          </Button>
        )}
      </div>
      <form
        className="panel-body stack"
        onSubmit={(event) => {
          event.preventDefault();
          void start();
        }}
      >
        {files.length === 0 ? (
          <div className="dim">Choose one or more files of the list.</div>
        ) : (
          <div style={{ maxHeight: 230, overflowY: "auto" }}>
            {files.map((entry) => (
              <Picked
                key={entry.location}
                entry={entry}
                outcome={outcomes.get(entry.location!)}
                remove={busy ? undefined : () => remove(entry)}
              />
            ))}
          </div>
        )}
        {profiles.error && !profiles.data ? (
          <ErrorNote error={profiles.error} retry={() => void profiles.refetch()} />
        ) : (
          <div>
            <Select
              label="Profile"
              data={items.map((p) => ({ value: p.name, label: p.name }))}
              value={profile?.name ?? null}
              onChange={(value) => setChosen(value ?? undefined)}
              disabled={busy || items.length === 0}
              searchable={items.length > 8}
            />
            {profile && (
              <div className="small dim" style={{ marginTop: 5 }}>
                {sentence(profile.description)}{" "}
                {profile.shares.length > 0 && `Publishes to ${profile.shares.join(", ")}. `}
                <Link to="/profiles" search={{ name: profile.name }}>
                  Read it
                </Link>
              </div>
            )}
          </div>
        )}
        {profile && profile.faults.length > 0 && (
          <Note tone="bad" title="This profile cannot be used">
            {profile.faults.map((fault) => (
              <div key={`${fault.key}:${fault.message}`}>{sentence(fault.message)}</div>
            ))}
          </Note>
        )}
        {files.length <= 1 && (
          <TextInput
            label="Title"
            placeholder={one ? stem(one.name) : "The file's name"}
            maxLength={200}
            value={title}
            disabled={busy}
            onChange={(event) => setTitle(event.currentTarget.value)}
          />
        )}
        <div>
          <div className="small strong" style={{ marginBottom: 4 }}>
            Priority
          </div>
          <SegmentedControl
            fullWidth
            size="xs"
            aria-label="Priority"
            value={band}
            disabled={busy}
            onChange={setBand}
            data={[
              { value: "2", label: "Low" },
              { value: "5", label: "Normal" },
              { value: "8", label: "High" },
            ]}
          />
        </div>
        {waiting?.state === "waiting" && (
          <Note
            tone="warn"
            role="status"
            title="Not sent yet"
            action={
              <Button
                size="compact-xs"
                variant="default"
                onClick={() => {
                  stopped.current = true;
                  setBusy(false);
                  setOutcomes(new Map());
                }}
              >
                Don't wait
              </Button>
            }
          >
            {sentence(waiting.error.message)} It is sent by itself as soon as it can be; leave this
            page open.
          </Note>
        )}
        <Button
          type="submit"
          size="sm"
          leftSection={<IconPlayerPlay size={15} />}
          loading={busy}
          disabled={files.length === 0 || !profile || profile.faults.length > 0}
        >
          {files.length > 1 ? `Start ${files.length} ingests` : "Start the ingest"}
        </Button>
        {(connection.state === "degraded" || connection.state === "disconnected") && !busy && (
          <div className="small dim">It is sent as soon as the connection is back.</div>
        )}
        {made.length > 0 && !busy && (
          <Note tone="good" role="status" title={`${count(made.length, "job")} started`}>
            {made.map(
              (outcome) =>
                outcome.state === "made" && (
                  <div key={outcome.job.id}>
                    <Link to="/jobs/$id" params={{ id: outcome.job.id }}>
                      {outcome.job.title}
                    </Link>
                  </div>
                ),
            )}
          </Note>
        )}
      </form>
    </section>
  );
}

function Picked({
  entry,
  outcome,
  remove,
}: {
  entry: Entry;
  outcome: Outcome | undefined;
  remove?: () => void;
}) {
  return (
    <div>
      <div className="pick">
        <span className="clip" style={{ flex: 1 }} title={entry.location ?? undefined}>
          {entry.location ? splitLocation(entry.location).name : entry.name}
        </span>
        <span className="small dim nowrap">
          {outcome?.state === "sending"
            ? "sending"
            : outcome?.state === "waiting"
              ? "waits"
              : entry.size != null
                ? bytes(entry.size)
                : ""}
        </span>
        {remove && (
          <ActionIcon
            variant="subtle"
            color="gray"
            size="xs"
            aria-label={`Leave out ${entry.name}`}
            onClick={remove}
          >
            <IconX size={13} />
          </ActionIcon>
        )}
      </div>
      {outcome?.state === "refused" && (
        <div style={{ margin: "6px 0" }}>
          <ErrorNote error={outcome.error} />
        </div>
      )}
    </div>
  );
}

/** `share:folder/name` → `folder/name`. */
function pathOf(location: string): string {
  return location.slice(location.indexOf(":") + 1);
}

function stem(name: string): string {
  const dot = name.lastIndexOf(".");
  return dot > 0 ? name.slice(0, dot) : name;
}
