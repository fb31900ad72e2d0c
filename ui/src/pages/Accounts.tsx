// Who submits, and how the accounts share the fleet.

import { ActionIcon, NumberInput } from "@mantine/core";
import { IconCheck } from "@tabler/icons-react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { api, type Schemas } from "../api/client";
import { queries } from "../api/queries";
import { type Column, DataTable } from "../components/DataTable";
import { ErrorNote, Loading } from "../components/Messages";
import { Tag } from "../components/State";

type Account = Schemas["Account"];

/** Accounts with their shares of the fleet; for admins. */
export function Accounts() {
  const accounts = useQuery(queries.accounts());
  const rows = accounts.data?.items ?? [];
  const columns: Column<Account>[] = [
    {
      id: "name",
      head: "Name",
      className: "fill",
      sort: (account) => account.name,
      cell: (account) => <span className="strong clip">{account.name}</span>,
    },
    {
      id: "role",
      head: "Role",
      sort: (account) => account.role,
      cell: (account) => <Tag>{account.disabled ? "disabled" : account.role}</Tag>,
    },
    {
      id: "jobs",
      head: "Open jobs",
      className: "num",
      sort: (account) => account.open_jobs,
      cell: (account) => account.open_jobs,
    },
    {
      id: "share",
      head: "Share",
      className: "num",
      cell: (account) => shareOf(account, rows),
    },
    {
      id: "weight",
      head: "Weight",
      className: "num",
      sort: (account) => account.weight,
      cell: (account) => <Weight account={account} />,
    },
  ];
  return (
    <section className="panel">
      <div className="panel-head">
        <h2>Shares of the fleet</h2>
      </div>
      <div className="panel-body dim">
        While several accounts have work of the same priority, each gets its share. Twice the weight
        is twice the share; it counts for jobs that are planned from now on.
      </div>
      {accounts.error && !accounts.data ? (
        <div className="panel-body">
          <ErrorNote error={accounts.error} retry={() => void accounts.refetch()} />
        </div>
      ) : accounts.isPending ? (
        <Loading rows={3} />
      ) : (
        <DataTable
          label="Accounts"
          rows={rows}
          columns={columns}
          rowKey={(account) => account.name}
          card={(account) => (
            <div className="row" style={{ cursor: "default" }}>
              <div style={{ flex: 1, minWidth: 0 }}>
                <div className="row">
                  <span className="strong clip">{account.name}</span>
                  <Tag>{account.disabled ? "disabled" : account.role}</Tag>
                </div>
                <div className="small dim">
                  {account.open_jobs} open jobs, share {shareOf(account, rows)}
                </div>
              </div>
              <Weight account={account} />
            </div>
          )}
        />
      )}
    </section>
  );
}

/** What the account gets among those that have work; nothing to say of one that has none. */
function shareOf(account: Account, all: Account[]): string {
  if (account.open_jobs === 0) return "–";
  const busy = all.filter((other) => other.open_jobs > 0);
  const sum = busy.reduce((total, other) => total + other.weight, 0);
  return `${Math.round((100 * account.weight) / sum)} %`;
}

function Weight({ account }: { account: Account }) {
  const client = useQueryClient();
  const [value, setValue] = useState<number | string>(account.weight);
  const save = useMutation({
    mutationFn: (weight: number) => api.setWeight(account.name, weight),
    onSuccess: () => client.invalidateQueries({ queryKey: ["accounts"] }),
  });
  const changed = typeof value === "number" && value !== account.weight;
  return (
    <form
      className="row"
      style={{ gap: 4, flexWrap: "nowrap", justifyContent: "flex-end" }}
      onSubmit={(event) => {
        event.preventDefault();
        if (changed) save.mutate(value);
      }}
    >
      <NumberInput
        aria-label={`Weight of ${account.name}`}
        size="xs"
        w={92}
        min={1}
        max={10_000}
        clampBehavior="strict"
        allowDecimal={false}
        value={value}
        onChange={setValue}
        error={save.error ? save.error.message : undefined}
      />
      <ActionIcon
        type="submit"
        variant="default"
        aria-label={`Set the weight of ${account.name}`}
        loading={save.isPending}
        style={{ visibility: changed ? "visible" : "hidden" }}
      >
        <IconCheck size={14} />
      </ActionIcon>
    </form>
  );
}
