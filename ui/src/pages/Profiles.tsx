// Profiles: what can be made of a source, the text that says so, and a place to change it.

import { Button, SegmentedControl, Textarea } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { IconCheck, IconPencil } from "@tabler/icons-react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
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
                      {!profile.shipped && <Tag title="Made here">own</Tag>}
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
            value={draft === undefined ? "file" : "edit"}
            onChange={(value) => setDraft(value === "edit" ? data.text : undefined)}
            data={[
              { value: "file", label: "Read" },
              {
                value: "edit",
                label: (
                  <span className="row">
                    <IconPencil size={13} /> Edit
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
              {data.version}
              <code title={data.hash} className="dim">
                {data.hash.slice(0, 16)}
              </code>
              <Copy value={data.hash} label="Copy the whole hash" />
              {data.shipped && <Tag title="As it comes with trix">shipped</Tag>}
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
          <Edit profile={data} text={draft} onChange={setDraft} />
        )}
      </div>
    </div>
  );
}

/** The name that a profile's text gives itself. */
export function nameIn(text: string): string | undefined {
  return /^\s*name\s*=\s*["']([^"']+)["']/m.exec(text)?.[1];
}

/** Changes a text, checks it, and stores it: under another name it is another profile. */
function Edit({
  profile,
  text,
  onChange,
}: {
  profile: Schemas["Profile"];
  text: string;
  onChange: (text: string | undefined) => void;
}) {
  const client = useQueryClient();
  const navigate = useNavigate();
  const me = useQuery(queries.me()).data;
  const name = nameIn(text);
  const check = useMutation({ mutationFn: api.validate });
  const save = useMutation({
    mutationFn: () => api.putProfile(name ?? profile.name, text),
    onSuccess: async (stored) => {
      await client.invalidateQueries({ queryKey: ["profiles"] });
      notifications.show({
        color: "green",
        message: `${stored.name} is stored as version ${stored.version}.`,
      });
      onChange(undefined);
      void navigate({ to: "/profiles", search: { name: stored.name } });
    },
  });
  const verdict = check.data;
  const forget = () => {
    check.reset();
    save.reset();
  };
  return (
    <div className="panel-body stack ruled">
      <Textarea
        aria-label="Text of the profile"
        classNames={{ input: "editor" }}
        autosize
        minRows={12}
        maxRows={32}
        spellCheck={false}
        value={text}
        onChange={(event) => {
          onChange(event.currentTarget.value);
          forget();
        }}
      />
      <div className="row wrap">
        {me?.role !== "viewer" && (
          <Button
            loading={save.isPending}
            disabled={text === profile.text}
            onClick={() => {
              forget();
              save.mutate();
            }}
          >
            {name && name !== profile.name ? `Save as ${name}` : "Save"}
          </Button>
        )}
        <Button
          variant="default"
          leftSection={<IconCheck size={14} />}
          loading={check.isPending}
          onClick={() => {
            forget();
            check.mutate(text);
          }}
        >
          Check
        </Button>
        <span className="dim small">
          Jobs that were submitted before keep their version. Another name makes another profile.
        </span>
      </div>
      {(check.error ?? save.error) && <ErrorNote error={check.error ?? save.error} />}
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
