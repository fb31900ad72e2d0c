// The account, how the interface looks, tokens for programs, and shares of the fleet.

import {
  Button,
  Modal,
  NumberInput,
  SegmentedControl,
  Select,
  TextInput,
  useMantineColorScheme,
} from "@mantine/core";
import { useForm } from "@mantine/form";
import { IconPlus } from "@tabler/icons-react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { api, type Schemas } from "../api/client";
import { queries } from "../api/queries";
import { Copy } from "../components/Copy";
import { type Column, DataTable } from "../components/DataTable";
import { Empty, ErrorNote, Loading, Note } from "../components/Messages";
import { Badge, Tag } from "../components/State";
import { Ago } from "../components/Time";
import { ROLE, type Word } from "../words";
import { Accounts } from "./Accounts";

type Token = Schemas["Token"];

export function SettingsPage() {
  const me = useQuery(queries.me()).data;
  const { colorScheme, setColorScheme } = useMantineColorScheme();
  return (
    <div className="page" style={{ maxWidth: 1040 }}>
      <div className="page-head">
        <h1>Settings</h1>
      </div>
      <div className="stack">
        <section className="panel">
          <div className="panel-head">
            <h2>Account</h2>
          </div>
          <div className="panel-body">
            <dl className="facts">
              <dt>Name</dt>
              <dd>{me?.name}</dd>
              <dt>May do</dt>
              <dd>{me && ROLE[me.role]}</dd>
              <dt>Session ends</dt>
              <dd>{me?.session_ends_at ? <Ago at={me.session_ends_at} /> : "never"}</dd>
            </dl>
          </div>
        </section>
        <section className="panel">
          <div className="panel-head">
            <h2>Appearance</h2>
          </div>
          <div className="panel-body">
            <SegmentedControl
              size="xs"
              aria-label="Light or dark"
              value={colorScheme}
              onChange={(value) => setColorScheme(value as "auto" | "light" | "dark")}
              data={[
                { value: "auto", label: "As the system" },
                { value: "light", label: "Light" },
                { value: "dark", label: "Dark" },
              ]}
            />
          </div>
        </section>
        {me?.role === "admin" ? (
          <>
            <Tokens />
            <Accounts />
          </>
        ) : (
          <section className="panel">
            <div className="panel-head">
              <h2>Tokens for programs</h2>
            </div>
            <div className="panel-body dim">Only admins see and make tokens.</div>
          </section>
        )}
        <section className="panel">
          <div className="panel-head">
            <h2>Keys</h2>
          </div>
          <div className="panel-body">
            <dl className="facts">
              <dt>
                <kbd>/</kbd>
              </dt>
              <dd>Find in the list of jobs or files</dd>
              <dt>
                <kbd>↑</kbd> <kbd>↓</kbd> or <kbd>k</kbd> <kbd>j</kbd>
              </dt>
              <dd>Go through the rows of a table</dd>
              <dt>
                <kbd>Enter</kbd>
              </dt>
              <dd>Open the row</dd>
              <dt>
                <kbd>n</kbd>
              </dt>
              <dd>Start an ingest</dd>
              <dt>
                <kbd>g</kbd> <kbd>j</kbd>
              </dt>
              <dd>Go to the jobs</dd>
            </dl>
          </div>
        </section>
      </div>
    </div>
  );
}

function stateOf(token: Token): Word {
  if (token.revoked_at) return { text: "Revoked", tone: "mute", hint: "It works no more" };
  if (token.expires_at && Date.parse(token.expires_at) < Date.now()) {
    return { text: "Run out", tone: "mute", hint: "It works no more" };
  }
  return { text: "Valid", tone: "good", hint: "Programs that have it may use it" };
}

function Tokens() {
  const tokens = useQuery(queries.tokens());
  const client = useQueryClient();
  const [making, setMaking] = useState(false);
  const [revoking, setRevoking] = useState<Token>();
  const revoke = useMutation({
    mutationFn: (token: Token) => api.revokeToken(token.id),
    onSuccess: () => {
      setRevoking(undefined);
      return client.invalidateQueries({ queryKey: ["tokens"] });
    },
  });
  const columns: Column<Token>[] = [
    {
      id: "name",
      head: "Name",
      className: "fill",
      sort: (token) => token.name,
      cell: (token) => <span className="strong clip">{token.name}</span>,
    },
    {
      id: "role",
      head: "Role",
      sort: (token) => token.role,
      cell: (token) => <Tag>{token.role}</Tag>,
    },
    { id: "state", head: "State", cell: (token) => <Badge word={stateOf(token)} /> },
    { id: "made", head: "Made", className: "num", cell: (token) => <Ago at={token.created_at} /> },
    {
      id: "used",
      head: "Last used",
      className: "num",
      cell: (token) =>
        token.last_used_at ? <Ago at={token.last_used_at} /> : <span className="faint">never</span>,
    },
    {
      id: "ends",
      head: "Runs out",
      className: "num",
      cell: (token) =>
        token.expires_at ? <Ago at={token.expires_at} /> : <span className="faint">never</span>,
    },
    {
      id: "revoke",
      head: "",
      className: "num",
      cell: (token) =>
        !token.revoked_at && (
          <Button size="compact-xs" variant="subtle" color="red" onClick={() => setRevoking(token)}>
            Revoke
          </Button>
        ),
    },
  ];
  return (
    <section className="panel">
      <div className="panel-head">
        <h2>Tokens for programs</h2>
        <Button
          variant="default"
          leftSection={<IconPlus size={14} />}
          onClick={() => setMaking(true)}
        >
          Make a token
        </Button>
      </div>
      {tokens.error && !tokens.data ? (
        <div className="panel-body">
          <ErrorNote error={tokens.error} retry={() => void tokens.refetch()} />
        </div>
      ) : tokens.isPending ? (
        <Loading rows={3} />
      ) : tokens.data && tokens.data.items.length > 0 ? (
        <DataTable
          label="Tokens"
          rows={tokens.data.items}
          columns={columns}
          rowKey={(token) => String(token.id)}
          card={(token) => (
            <div className="row" style={{ cursor: "default" }}>
              <div style={{ flex: 1, minWidth: 0 }}>
                <div className="row">
                  <span className="strong clip">{token.name}</span>
                  <Tag>{token.role}</Tag>
                  <Badge word={stateOf(token)} />
                </div>
                <div className="small dim">
                  made <Ago at={token.created_at} />
                  {token.last_used_at && (
                    <>
                      , used <Ago at={token.last_used_at} />
                    </>
                  )}
                </div>
              </div>
              {!token.revoked_at && (
                <Button
                  size="compact-xs"
                  variant="subtle"
                  color="red"
                  onClick={() => setRevoking(token)}
                >
                  Revoke
                </Button>
              )}
            </div>
          )}
        />
      ) : (
        <Empty title="No token yet">
          <p>A program sends its token as Authorization: Bearer …</p>
        </Empty>
      )}
      <MakeToken opened={making} onClose={() => setMaking(false)} />
      <Modal
        opened={revoking !== undefined}
        onClose={() => setRevoking(undefined)}
        title={`Revoke “${revoking?.name}”?`}
      >
        <div className="stack">
          <p style={{ margin: 0 }}>
            Programs that use it are refused from now on. A revoked token never comes back.
          </p>
          {revoke.error && <ErrorNote error={revoke.error} />}
          <div className="row" style={{ justifyContent: "flex-end" }}>
            <Button variant="default" onClick={() => setRevoking(undefined)}>
              Keep it
            </Button>
            <Button
              color="red"
              loading={revoke.isPending}
              onClick={() => revoking && revoke.mutate(revoking)}
            >
              Revoke
            </Button>
          </div>
        </div>
      </Modal>
    </section>
  );
}

function MakeToken({ opened, onClose }: { opened: boolean; onClose: () => void }) {
  const client = useQueryClient();
  const form = useForm<{ name: string; role: Schemas["Role"]; days: number | "" }>({
    initialValues: { name: "", role: "operator", days: 365 },
    validate: {
      name: (v) => (v.trim() ? null : "What is it for?"),
    },
  });
  const make = useMutation({
    mutationFn: (v: typeof form.values) =>
      api.createToken({ name: v.name, role: v.role, days: v.days === "" ? null : v.days }),
    onSuccess: () => client.invalidateQueries({ queryKey: ["tokens"] }),
  });
  const close = () => {
    onClose();
    form.reset();
    make.reset();
  };
  return (
    <Modal
      opened={opened}
      onClose={close}
      title={make.data ? `Token “${make.data.token.name}”` : "Make a token"}
      // The secret is shown once: a slip of the mouse must not lose it.
      closeOnClickOutside={!make.data}
    >
      {make.data ? (
        <div className="stack">
          <Note tone="warn" title="Copy it now: it is shown this once." />
          <div className="row">
            <code className="log break" style={{ flex: 1 }} data-testid="secret">
              {make.data.secret}
            </code>
            <Copy value={make.data.secret} label="Copy the token" />
          </div>
          <div className="row" style={{ justifyContent: "flex-end" }}>
            <Button onClick={close}>I have it</Button>
          </div>
        </div>
      ) : (
        <form className="stack" onSubmit={form.onSubmit((v) => make.mutate(v))}>
          <TextInput
            label="Name"
            description="What it is for, for example the program's name"
            data-autofocus
            {...form.getInputProps("name")}
          />
          <Select
            label="May do"
            data={Object.entries(ROLE).map(([value, label]) => ({ value, label }))}
            {...form.getInputProps("role")}
          />
          <NumberInput
            label="Days until it runs out"
            description="Empty: never"
            min={1}
            max={3650}
            allowDecimal={false}
            {...form.getInputProps("days")}
          />
          {make.error && <ErrorNote error={make.error} />}
          <div className="row" style={{ justifyContent: "flex-end" }}>
            <Button variant="default" onClick={close}>
              Cancel
            </Button>
            <Button type="submit" loading={make.isPending}>
              Make it
            </Button>
          </div>
        </form>
      )}
    </Modal>
  );
}
