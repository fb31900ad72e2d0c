// Signing in: by name and password, by a one-time link, or by setting up the first account.

import { Button, PasswordInput, TextInput } from "@mantine/core";
import { useForm } from "@mantine/form";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import { type ReactNode, useState } from "react";
import { ApiError, api, type Schemas } from "../api/client";
import { retryRead } from "../api/queries";
import { ErrorNote, Loading, Note } from "../components/Messages";

/** The token of the link that led here, taken out of the address so that it stays nowhere. */
function takeToken(): string | undefined {
  const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? undefined;
  if (token) history.replaceState(history.state, "", location.pathname + location.search);
  return token;
}

export function LogInPage() {
  const [token, setToken] = useState(takeToken);
  return (
    <div className="gate">
      <div className="panel gate-card stack">
        <div className="row">
          <img src={`${import.meta.env.BASE_URL}trix.svg`} width={28} height={28} alt="" />
          <h1>trix</h1>
        </div>
        {token ? <Link token={token} onPassword={() => setToken(undefined)} /> : <Password />}
      </div>
    </div>
  );
}

/** Goes where the person wanted to go before signing in. */
function useEnter() {
  const client = useQueryClient();
  const navigate = useNavigate();
  const { next } = useSearch({ from: "/login" });
  return (me: Schemas["Me"]) => {
    client.clear();
    client.setQueryData(["me"], me);
    // Only paths of this server: anything else would lead away from it.
    const path = next?.startsWith("/") && !next.startsWith("//") ? next : "/jobs";
    void navigate({ href: path, replace: true });
  };
}

function Password() {
  const enter = useEnter();
  const form = useForm({ mode: "uncontrolled", initialValues: { name: "", password: "" } });
  const logIn = useMutation({ mutationFn: api.logIn, onSuccess: enter });
  const wrong = logIn.error instanceof ApiError && logIn.error.status === 401;
  return (
    <form className="stack" onSubmit={form.onSubmit((values) => logIn.mutate(values))}>
      <TextInput
        label="Name"
        size="sm"
        autoComplete="username"
        required
        withAsterisk={false}
        data-autofocus
        autoFocus
        {...form.getInputProps("name")}
      />
      <PasswordInput
        label="Password"
        size="sm"
        autoComplete="current-password"
        required
        withAsterisk={false}
        {...form.getInputProps("password")}
      />
      {logIn.error && !wrong && <ErrorNote error={logIn.error} />}
      {wrong && <Note tone="bad" role="alert" title="Name or password is wrong." />}
      <Button type="submit" size="sm" loading={logIn.isPending} fullWidth>
        Log in
      </Button>
      <p className="dim small" style={{ margin: 0 }}>
        Forgotten? <code>trix login-link NAME</code> on the server's machine gives a one-time link.
      </p>
    </form>
  );
}

function Link({ token, onPassword }: { token: string; onPassword: () => void }) {
  const info = useQuery({
    queryKey: ["link", token],
    queryFn: () => api.inspectLink(token),
    retry: retryRead,
    staleTime: Number.POSITIVE_INFINITY,
  });
  if (info.isPending) return <Loading rows={3} />;
  if (!info.data) {
    const used = info.error instanceof ApiError && !info.error.transient;
    return (
      <>
        {used ? (
          <Note tone="warn" role="alert" title="This link was used already or has run out.">
            <code>trix login-link</code> on the server's machine gives a new one.
          </Note>
        ) : (
          <ErrorNote error={info.error} retry={() => void info.refetch()} />
        )}
        <Button variant="default" size="sm" onClick={onPassword}>
          Log in with a password
        </Button>
      </>
    );
  }
  return info.data.purpose === "setup" ? (
    <SetUp token={token} />
  ) : (
    <UseLink token={token} name={info.data.name ?? undefined} />
  );
}

function UseLink({ token, name }: { token: string; name?: string }) {
  const enter = useEnter();
  const logIn = useMutation({ mutationFn: () => api.takeLink(token), onSuccess: enter });
  return (
    <Form submit={() => logIn.mutate()} error={logIn.error}>
      <p style={{ margin: 0 }}>
        This link logs you in as <b>{name}</b>. It works once.
      </p>
      <Button type="submit" size="sm" loading={logIn.isPending} fullWidth autoFocus>
        Log in as {name}
      </Button>
    </Form>
  );
}

function SetUp({ token }: { token: string }) {
  const enter = useEnter();
  const form = useForm({
    mode: "uncontrolled",
    initialValues: { name: "", password: "", again: "" },
    validateInputOnBlur: true,
    validate: {
      name: (v) =>
        /^[\p{L}\p{N}._@-]{1,64}$/u.test(v) ? null : "1 to 64 letters, digits and . _ - @",
      password: (v) => (new TextEncoder().encode(v).length >= 10 ? null : "At least 10 characters"),
      again: (v, all) => (v === all.password ? null : "The two differ"),
    },
  });
  const setUp = useMutation({
    mutationFn: (v: { name: string; password: string }) =>
      api.setUp({ token, name: v.name, password: v.password }),
    onSuccess: enter,
  });
  return (
    <Form submit={form.onSubmit((values) => setUp.mutate(values))} error={setUp.error}>
      <p style={{ margin: 0 }}>
        <b>Welcome.</b> Choose the name and the password of the first account. It may do everything.
      </p>
      <TextInput
        label="Name"
        size="sm"
        autoComplete="username"
        autoFocus
        {...form.getInputProps("name")}
      />
      <PasswordInput
        label="Password"
        description="At least 10 characters"
        size="sm"
        autoComplete="new-password"
        {...form.getInputProps("password")}
      />
      <PasswordInput
        label="Password again"
        size="sm"
        autoComplete="new-password"
        {...form.getInputProps("again")}
      />
      <Button type="submit" size="sm" loading={setUp.isPending} fullWidth>
        Make the account
      </Button>
    </Form>
  );
}

function Form({
  submit,
  error,
  children,
}: {
  submit: (event: React.FormEvent<HTMLFormElement>) => void;
  error: unknown;
  children: ReactNode;
}) {
  return (
    <form
      className="stack"
      onSubmit={(event) => {
        event.preventDefault();
        submit(event);
      }}
    >
      {children}
      {error ? <ErrorNote error={error} /> : null}
    </form>
  );
}
