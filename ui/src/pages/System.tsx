// The machines and what they stand on: workers, shares, database, leader.

import { ActionIcon, Button, Menu, Modal, Textarea, Tooltip } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { IconDots, IconPlayerPause, IconPlayerPlay } from "@tabler/icons-react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { type ReactNode, useState } from "react";
import { api, messageOf, type Schemas } from "../api/client";
import { queries } from "../api/queries";
import { Copy } from "../components/Copy";
import { type Column, DataTable } from "../components/DataTable";
import { Empty, ErrorNote, Loading, Note } from "../components/Messages";
import { Badge, Bar, Tag } from "../components/State";
import { Ago } from "../components/Time";
import { bytes, count } from "../format";
import { kindWord, NODE, SHARE, SHARE_ROLE, sentence, TASK, type Tone, WORKER } from "../words";

type Node = Schemas["Node"];
type Share = Schemas["Share"];
type System = Schemas["System"];

export function SystemPage() {
  const system = useQuery(queries.system());
  const nodes = useQuery(queries.nodes());
  const shares = useQuery(queries.shares());
  return (
    <div className="page">
      <div className="page-head">
        <h1>System</h1>
        <PauseAll />
      </div>
      <div className="stack">
        <Holds />
        {system.error && !system.data ? (
          <ErrorNote error={system.error} retry={() => void system.refetch()} />
        ) : (
          <Whole system={system.data} />
        )}
        <Panel title="Nodes" query={nodes}>
          {nodes.data && nodes.data.items.length > 0 ? (
            <DataTable
              label="Nodes"
              rows={nodes.data.items}
              columns={NODES}
              rowKey={(node) => String(node.id)}
              card={(node) => <NodeCard node={node} />}
            />
          ) : (
            <Empty title="No node has registered">
              <p>
                Start a worker with <code>trix worker</code>; <code>trix up</code> starts one too.
              </p>
            </Empty>
          )}
        </Panel>
        <Panel title="Shares, seen from the server" query={shares}>
          {shares.data && shares.data.items.length > 0 ? (
            <DataTable
              label="Shares"
              rows={shares.data.items}
              columns={SHARES}
              rowKey={(share) => share.name}
              card={(share) => <ShareCard share={share} />}
            />
          ) : (
            <Empty title="No share is known">
              <p>
                Name them in <code>trix.toml</code> under <code>[[share]]</code>.
              </p>
            </Empty>
          )}
        </Panel>
      </div>
    </div>
  );
}

function Panel({
  title,
  query,
  children,
}: {
  title: string;
  query: { isPending: boolean; error: unknown; data: unknown; refetch: () => unknown };
  children: ReactNode;
}) {
  return (
    <section className="panel">
      <div className="panel-head">
        <h2>{title}</h2>
      </div>
      {query.error && !query.data ? (
        <div className="panel-body">
          <ErrorNote error={query.error} retry={() => void query.refetch()} />
        </div>
      ) : query.isPending ? (
        <Loading rows={3} />
      ) : (
        children
      )}
    </section>
  );
}

function Whole({ system }: { system: System | undefined }) {
  const tasks = system?.tasks ?? {};
  const shown = (["running", "ready", "waiting", "failed", "quarantined"] as const).filter(
    (state) => (tasks[state] ?? 0) > 0,
  );
  return (
    <div className="tiles">
      <Tile
        name="Database"
        tone={!system ? "mute" : system.database.ok ? "good" : "bad"}
        value={!system ? "…" : system.database.ok ? "Answers" : "Away"}
      >
        {system?.database.reason && <div>{sentence(system.database.reason)}</div>}
        {system && (
          <div>
            since <Ago at={system.database.since} />
            {system.database.schema_version != null && `, schema ${system.database.schema_version}`}
          </div>
        )}
      </Tile>
      <Tile
        name="Dispatcher"
        tone={!system ? "mute" : system.leader?.alive ? "good" : "bad"}
        value={!system ? "…" : system.leader?.alive ? "Leads" : "None leads"}
      >
        {system?.leader && (
          <>
            <div className="clip">{system.leader.holder}</div>
            <div>
              since <Ago at={system.leader.since} />, epoch {system.leader.epoch}
            </div>
          </>
        )}
      </Tile>
      <Tile name="Server" tone={system ? "good" : "mute"} value={system?.version ?? "…"}>
        {system && (
          <>
            <div>
              started <Ago at={system.started_at} />
            </div>
            <div>event {system.event_head}</div>
          </>
        )}
      </Tile>
      <Tile
        name="Tasks"
        tone={(tasks.running ?? 0) > 0 ? "busy" : "mute"}
        value={system ? count(tasks.running ?? 0, "runs", "run") : "…"}
      >
        <div className="row wrap" style={{ gap: 4 }}>
          {shown.length === 0 && system && "nothing waits"}
          {shown
            .filter((state) => state !== "running")
            .map((state) => (
              <Tag key={state} tone={TASK[state].tone}>
                {tasks[state]} {TASK[state].text.toLowerCase()}
              </Tag>
            ))}
        </div>
        {(tasks.quarantined ?? 0) + (tasks.failed ?? 0) > 0 && (
          <Link to="/jobs" search={{ state: "failed" }}>
            Show failed jobs
          </Link>
        )}
      </Tile>
    </div>
  );
}

function Tile({
  name,
  value,
  tone,
  children,
}: {
  name: string;
  value: string;
  tone: Tone;
  children: ReactNode;
}) {
  return (
    <div className="panel tile" data-tone={tone}>
      <div className="row">
        <span className="dot" />
        <span className="dim">{name}</span>
      </div>
      <div className="tile-value">{value}</div>
      <div className="small dim">{children}</div>
    </div>
  );
}

type Hold = Schemas["Hold"];

/** What a hold stops, as part of a sentence. */
function stopped(hold: Hold): string {
  switch (hold.scope) {
    case "all":
      return "Everything is paused";
    case "kind":
      return `All tasks of the kind ${kindWord(hold.name ?? "")} are paused`;
    case "node":
      return `Node ${hold.name} is paused`;
  }
}

function useOperator(): boolean {
  const me = useQuery(queries.me()).data;
  return me !== undefined && me.role !== "viewer";
}

/** A command of an operator; what it changes is read again. */
function useCommand<T>(run: (what: T) => Promise<unknown>, done?: () => void) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: run,
    onSuccess: () => {
      done?.();
      for (const key of ["holds", "nodes", "system"]) {
        void client.invalidateQueries({ queryKey: [key] });
      }
    },
    onError: (error) =>
      notifications.show({ color: "red", title: "Not done", message: messageOf(error) }),
  });
}

function Holds() {
  const holds = useQuery(queries.holds());
  const operator = useOperator();
  const lift = useCommand(api.lift);
  if (!holds.data?.items.length) return null;
  return (
    <>
      {holds.data.items.map((hold) => (
        <Note
          key={`${hold.scope}/${hold.name}`}
          tone="warn"
          role="status"
          title={`${stopped(hold)}: ${hold.reason}`}
          action={
            operator && (
              <Button
                variant="default"
                leftSection={<IconPlayerPlay size={14} />}
                loading={lift.isPending}
                onClick={() => lift.mutate(hold)}
              >
                Resume
              </Button>
            )
          }
        >
          by {hold.by}, <Ago at={hold.at} />. What ran went on; nothing new is started.
        </Note>
      ))}
    </>
  );
}

/** Asks why, because others will wonder. */
function Reason({
  title,
  children,
  action,
  pending,
  onClose,
  onDone,
}: {
  title: string;
  children: ReactNode;
  action: string;
  pending: boolean;
  onClose: () => void;
  onDone: (reason: string) => void;
}) {
  const [reason, setReason] = useState("");
  return (
    <Modal opened onClose={onClose} title={title}>
      <form
        className="stack"
        onSubmit={(event) => {
          event.preventDefault();
          onDone(reason.trim());
        }}
      >
        <p style={{ margin: 0 }}>{children}</p>
        <Textarea
          label="Why"
          description="For those who wonder later"
          value={reason}
          onChange={(event) => setReason(event.currentTarget.value)}
          maxLength={500}
          autosize
          minRows={2}
          data-autofocus
        />
        <div className="row" style={{ justifyContent: "flex-end" }}>
          <Button variant="default" onClick={onClose}>
            Not now
          </Button>
          <Button type="submit" loading={pending} disabled={!reason.trim()}>
            {action}
          </Button>
        </div>
      </form>
    </Modal>
  );
}

function PauseAll() {
  const [asking, setAsking] = useState(false);
  const operator = useOperator();
  const holds = useQuery(queries.holds());
  const hold = useCommand(api.holdAll, () => setAsking(false));
  if (!operator || holds.data?.items.some((h) => h.scope === "all")) return null;
  return (
    <span className="push">
      <Button
        variant="default"
        leftSection={<IconPlayerPause size={14} />}
        onClick={() => setAsking(true)}
      >
        Pause everything
      </Button>
      {asking && (
        <Reason
          title="Pause everything?"
          action="Pause"
          pending={hold.isPending}
          onClose={() => setAsking(false)}
          onDone={(reason) => hold.mutate(reason)}
        >
          What runs goes on to its end. Nothing new is started on any node until somebody resumes.
        </Reason>
      )}
    </span>
  );
}

/** What an operator may do with a node. */
function NodeMenu({ node }: { node: Node }) {
  const [asking, setAsking] = useState<"cordon" | "drain">();
  const operator = useOperator();
  const close = useCommand(
    (reason: string) =>
      asking === "drain" ? api.drain(node.name, reason) : api.cordon(node.name, reason),
    () => setAsking(undefined),
  );
  const open = useCommand(() =>
    node.state === "drained" ? api.undrain(node.name) : api.uncordon(node.name),
  );
  if (!operator) return null;
  return (
    <>
      <Menu position="bottom-end">
        <Menu.Target>
          <ActionIcon variant="subtle" color="gray" aria-label={`Commands for ${node.name}`}>
            <IconDots size={16} />
          </ActionIcon>
        </Menu.Target>
        <Menu.Dropdown>
          {node.state === "ok" ? (
            <>
              <Menu.Item onClick={() => setAsking("cordon")}>Close it for new work</Menu.Item>
              <Menu.Item onClick={() => setAsking("drain")}>Drain it</Menu.Item>
            </>
          ) : (
            <Menu.Item onClick={() => open.mutate(undefined)}>Open it again</Menu.Item>
          )}
        </Menu.Dropdown>
      </Menu>
      {asking && (
        <Reason
          title={asking === "drain" ? `Drain ${node.name}?` : `Close ${node.name}?`}
          action={asking === "drain" ? "Drain the node" : "Close the node"}
          pending={close.isPending}
          onClose={() => setAsking(undefined)}
          onDone={(reason) => close.mutate(reason)}
        >
          {asking === "drain"
            ? "It gets no more work; what runs there goes on, and then its worker leaves."
            : "It gets no more work; what runs there goes on, and its worker stays."}
        </Reason>
      )}
    </>
  );
}

function NodeState({ node }: { node: Node }) {
  const worker = node.worker;
  if (node.state !== "ok") {
    const why = node.closed_because ? `: ${node.closed_because}` : "";
    return <Badge word={{ ...NODE[node.state], hint: `${NODE[node.state].hint}${why}` }} />;
  }
  if (!worker) return <Tag>No worker yet</Tag>;
  if (worker.silent) {
    return (
      <Badge word={{ text: "Silent", tone: "warn", hint: "It has not answered for a while" }} />
    );
  }
  return <Badge word={WORKER[worker.state]} />;
}

/** Used of what there is. A worker that is gone uses nothing. */
function Meter({
  name,
  used,
  total,
  show,
}: {
  name: string;
  used: number;
  total: number;
  show: (n: number) => string;
}) {
  return (
    <div className="meter">
      <span className="small nowrap">
        {show(used)} <span className="faint">of {show(total)}</span>
      </span>
      <Bar
        fraction={total > 0 ? used / total : 0}
        tone={total > 0 && used / total > 0.95 ? "warn" : "busy"}
        label={name}
      />
    </div>
  );
}

const cores = (mcpu: number): string =>
  mcpu % 1000 === 0 ? String(mcpu / 1000) : (mcpu / 1000).toFixed(1);

const alive = (node: Node): boolean =>
  node.worker?.state === "active" || node.worker?.state === "draining";

function Cores({ node }: { node: Node }) {
  if (!node.worker || !alive(node)) return <span className="faint">–</span>;
  const { capacity, free } = node.worker;
  return (
    <Meter
      name={`Cores in use on ${node.name}`}
      used={capacity.mcpu - free.mcpu}
      total={capacity.mcpu}
      show={cores}
    />
  );
}

function Memory({ node }: { node: Node }) {
  if (!node.worker || !alive(node)) return <span className="faint">–</span>;
  const { capacity, free } = node.worker;
  return (
    <Meter
      name={`Memory in use on ${node.name}`}
      used={capacity.ram - free.ram}
      total={capacity.ram}
      show={bytes}
    />
  );
}

const NODES: Column<Node>[] = [
  {
    id: "name",
    head: "Node",
    sort: (node) => node.name,
    cell: (node) => <span className="strong nowrap">{node.name}</span>,
  },
  {
    id: "state",
    head: "Worker",
    sort: (node) => node.worker?.state ?? "",
    cell: (node) => <NodeState node={node} />,
  },
  {
    id: "running",
    head: "Attempts",
    className: "num",
    sort: (node) => node.worker?.running ?? 0,
    cell: (node) => (alive(node) ? (node.worker?.running ?? 0) : <span className="faint">–</span>),
  },
  { id: "cores", head: "Cores", width: 140, cell: (node) => <Cores node={node} /> },
  { id: "memory", head: "Memory", width: 160, cell: (node) => <Memory node={node} /> },
  {
    id: "shares",
    head: "Shares in order there",
    className: "fill",
    cell: (node) => (
      <div className="row wrap" style={{ gap: 4 }}>
        {node.worker?.shares_ok.map((share) => (
          <Tag key={share} tone={alive(node) ? "good" : undefined}>
            {share}
          </Tag>
        ))}
      </div>
    ),
  },
  {
    id: "version",
    head: "Version",
    cell: (node) =>
      node.worker && (
        <Tooltip label={`Engine ${node.worker.engine}`}>
          <span className="row nowrap" style={{ gap: 4 }}>
            {node.worker.version}
            <Copy value={node.worker.engine} label="Copy the engine id" />
          </span>
        </Tooltip>
      ),
  },
  {
    id: "seen",
    head: "Last answer",
    className: "num",
    sort: (node) => node.worker?.last_seen ?? "",
    cell: (node) => <Ago at={node.worker?.last_seen} />,
  },
  { id: "menu", head: "", cell: (node) => <NodeMenu node={node} /> },
];

function NodeCard({ node }: { node: Node }) {
  return (
    <div className="stack" style={{ gap: 6, cursor: "default" }}>
      <div className="row">
        <span className="strong clip">{node.name}</span>
        <span className="push row">
          <NodeState node={node} />
          <NodeMenu node={node} />
        </span>
      </div>
      <div className="row" style={{ gap: 20 }}>
        <Cores node={node} />
        <Memory node={node} />
      </div>
      <div className="row wrap" style={{ gap: 4 }}>
        {node.worker?.shares_ok.map((share) => (
          <Tag key={share} tone="good">
            {share}
          </Tag>
        ))}
        <span className="push small dim">
          {node.worker?.version} · <Ago at={node.worker?.last_seen} />
        </span>
      </div>
    </div>
  );
}

function Space({ share }: { share: Share }) {
  if (share.total_bytes == null || share.free_bytes == null) {
    return <span className="faint">–</span>;
  }
  const used = share.total_bytes - share.free_bytes;
  return (
    <div className="meter">
      <span className="small nowrap">
        {bytes(share.free_bytes)} <span className="faint">free of {bytes(share.total_bytes)}</span>
      </span>
      <Bar
        fraction={share.total_bytes > 0 ? used / share.total_bytes : 0}
        tone={used / share.total_bytes > 0.95 ? "warn" : "idle"}
        label={`Space in use on ${share.name}`}
      />
    </div>
  );
}

const SHARES: Column<Share>[] = [
  {
    id: "name",
    head: "Share",
    sort: (share) => share.name,
    cell: (share) =>
      share.role === "source" ? (
        <Link to="/ingest" search={{ share: share.name }} className="strong">
          {share.name}
        </Link>
      ) : (
        <span className="strong">{share.name}</span>
      ),
  },
  {
    id: "role",
    head: "Role",
    sort: (share) => share.role,
    cell: (share) => <span className="dim">{SHARE_ROLE[share.role]}</span>,
  },
  {
    id: "state",
    head: "State",
    sort: (share) => share.state,
    cell: (share) => <Badge word={SHARE[share.state]} />,
  },
  {
    id: "reason",
    head: "What is wrong",
    className: "fill",
    cell: (share) => (
      <div className="clip dim" title={share.reason ?? undefined}>
        {share.reason ? sentence(share.reason) : ""}
      </div>
    ),
  },
  { id: "space", head: "Space", width: 190, cell: (share) => <Space share={share} /> },
  {
    id: "since",
    head: "Since",
    className: "num",
    cell: (share) => <Ago at={share.since} />,
  },
];

function ShareCard({ share }: { share: Share }) {
  return (
    <div className="stack" style={{ gap: 6, cursor: "default" }}>
      <div className="row">
        <span className="strong">{share.name}</span>
        <span className="dim small">{SHARE_ROLE[share.role]}</span>
        <span className="push">
          <Badge word={SHARE[share.state]} />
        </span>
      </div>
      {share.reason && <div className="small">{sentence(share.reason)}</div>}
      <Space share={share} />
    </div>
  );
}
