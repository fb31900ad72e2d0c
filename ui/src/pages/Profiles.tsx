// Profiles: what can be made of a source, the file that says so, and a place to try changes.

import { Button, SegmentedControl, Textarea } from "@mantine/core";
import { IconCheck, IconPencil } from "@tabler/icons-react";
import { useMutation, useQuery } from "@tanstack/react-query";
import { Link, useSearch } from "@tanstack/react-router";
import { useState } from "react";
import { api, type Schemas } from "../api/client";
import { queries } from "../api/queries";
import { Copy } from "../components/Copy";
import { Empty, ErrorNote, Loading, Note } from "../components/Messages";
import { Tag } from "../components/State";
import { Toml } from "../components/Toml";
import { count } from "../format";
import { sentence } from "../words";

type Fault = Schemas["ProfileFault"];

export function ProfilesPage() {
  const { name } = useSearch({ from: "/shell/profiles" });
  const list = useQuery(queries.profiles());
  const chosen = name ?? list.data?.items[0]?.name;
  return (
    <div className="page">
      <div className="page-head">
        <h1>Profiles</h1>
      </div>
      {list.error && !list.data ? (
        <ErrorNote error={list.error} retry={() => void list.refetch()} />
      ) : (
        <div className="profiles">
          <div className="panel">
            {list.isPending ? (
              <Loading rows={5} />
            ) : list.data && list.data.items.length > 0 ? (
              <nav className="cards" aria-label="Profiles">
                {list.data.items.map((profile) => (
                  <Link
                    key={profile.name}
                    to="/profiles"
                    search={{ name: profile.name }}
                    className="card-row"
                    aria-current={profile.name === chosen ? "true" : undefined}
                  >
                    <div className="row">
                      <span className="strong clip">{profile.name}</span>
                      {profile.faults.length > 0 && (
                        <span className="push">
                          <Tag tone="bad">{count(profile.faults.length, "fault")}</Tag>
                        </span>
                      )}
                    </div>
                    <div className="small dim">{profile.description}</div>
                  </Link>
                ))}
              </nav>
            ) : (
              <Empty title="No profile" />
            )}
          </div>
          {chosen && <ProfileDetail key={chosen} name={chosen} />}
        </div>
      )}
    </div>
  );
}

function ProfileDetail({ name }: { name: string }) {
  const profile = useQuery(queries.profile(name));
  const [draft, setDraft] = useState<string>();
  if (profile.isPending) {
    return (
      <div className="panel">
        <Loading rows={10} />
      </div>
    );
  }
  if (profile.error && !profile.data) {
    return <ErrorNote error={profile.error} retry={() => void profile.refetch()} />;
  }
  const { data } = profile;
  return (
    <div className="stack">
      <div className="panel">
        <div className="panel-head wrap">
          <h2>{data.name}</h2>
          <SegmentedControl
            size="xs"
            value={draft === undefined ? "file" : "try"}
            onChange={(value) => setDraft(value === "try" ? data.text : undefined)}
            data={[
              { value: "file", label: "The file" },
              {
                value: "try",
                label: (
                  <span className="row">
                    <IconPencil size={13} /> Try a change
                  </span>
                ),
              },
            ]}
          />
        </div>
        <div className="panel-body">
          <dl className="facts">
            <dt>Makes</dt>
            <dd>{data.description}</dd>
            <dt>Publishes to</dt>
            <dd className="row wrap">
              {data.shares.length > 0
                ? data.shares.map((share) => <Tag key={share}>{share}</Tag>)
                : "no share"}
            </dd>
            <dt>Version</dt>
            <dd className="row">
              <code title={data.hash}>{data.hash.slice(0, 16)}</code>
              <Copy value={data.hash} label="Copy the whole hash" />
            </dd>
          </dl>
        </div>
        {data.faults.length > 0 && draft === undefined && (
          <div className="panel-body" style={{ paddingTop: 0 }}>
            <Faults title="This profile cannot be used" faults={data.faults} />
          </div>
        )}
        {draft === undefined ? (
          <div style={{ borderTop: "1px solid var(--line-soft)" }}>
            <Toml text={data.text} faults={data.faults} />
          </div>
        ) : (
          <Try text={draft} onChange={setDraft} />
        )}
      </div>
    </div>
  );
}

/** Checks a text. Nothing is stored: profiles are files beside the program. */
function Try({ text, onChange }: { text: string; onChange: (text: string) => void }) {
  const check = useMutation({ mutationFn: api.validate });
  const verdict = check.data;
  return (
    <div className="panel-body stack" style={{ borderTop: "1px solid var(--line-soft)" }}>
      <Textarea
        aria-label="Profile to check"
        classNames={{ input: "editor" }}
        autosize
        minRows={12}
        maxRows={32}
        spellCheck={false}
        value={text}
        onChange={(event) => {
          onChange(event.currentTarget.value);
          if (verdict || check.error) check.reset();
        }}
      />
      <div className="row">
        <Button
          leftSection={<IconCheck size={14} />}
          loading={check.isPending}
          onClick={() => check.mutate(text)}
        >
          Check
        </Button>
        <span className="dim small">
          Nothing is stored here: a profile is a file that is shipped with the program.
        </span>
      </div>
      {check.error && <ErrorNote error={check.error} />}
      {verdict?.valid && <Note tone="good" role="status" title="Nothing is wrong with it." />}
      {verdict && !verdict.valid && (
        <Faults title={`It has ${count(verdict.errors.length, "fault")}`} faults={verdict.errors} />
      )}
    </div>
  );
}

function Faults({ title, faults }: { title: string; faults: Fault[] }) {
  return (
    <Note tone="bad" role="alert" title={title}>
      {faults.map((fault) => (
        <div key={`${fault.key}:${fault.line}:${fault.message}`}>
          {fault.line && <span className="dim">line {fault.line} · </span>}
          {fault.key && <code>{fault.key}</code>}
          {fault.value && (
            <>
              {" = "}
              <code>{fault.value}</code>
            </>
          )}
          {": "}
          {sentence(fault.message)}
          {fault.allowed && <span className="dim"> Allowed: {fault.allowed}.</span>}
        </div>
      ))}
    </Note>
  );
}
