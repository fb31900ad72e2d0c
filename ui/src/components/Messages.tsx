// What is said instead of content: nothing there, something wrong, still loading.

import { Button, Skeleton } from "@mantine/core";
import { IconAlertTriangle, IconCircleX, IconInfoCircle, IconRefresh } from "@tabler/icons-react";
import type { ErrorComponentProps } from "@tanstack/react-router";
import { Link } from "@tanstack/react-router";
import type { ReactNode } from "react";
import { ApiError, messageOf } from "../api/client";
import { sentence, type Tone } from "../words";

export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="empty">
      <h3>{title}</h3>
      {children}
    </div>
  );
}

const ICONS: Partial<Record<Tone, typeof IconInfoCircle>> = {
  bad: IconCircleX,
  odd: IconCircleX,
  warn: IconAlertTriangle,
};

export function Note({
  tone,
  title,
  children,
  action,
  role,
}: {
  tone: Tone;
  title?: ReactNode;
  children?: ReactNode;
  action?: ReactNode;
  role?: "alert" | "status";
}) {
  const Icon = ICONS[tone] ?? IconInfoCircle;
  return (
    <div className="note" data-tone={tone} role={role}>
      <Icon size={18} />
      <div className="note-body">
        {title && <div className="note-title">{title}</div>}
        {children}
      </div>
      {action}
    </div>
  );
}

/** A failed call, in words, with what is allowed instead. */
export function ErrorNote({ error, retry }: { error: unknown; retry?: () => void }) {
  const problem = error instanceof ApiError ? error.problem : undefined;
  return (
    <Note
      tone={error instanceof ApiError && error.transient ? "warn" : "bad"}
      role="alert"
      title={sentence(messageOf(error))}
      action={
        retry && (
          <Button variant="default" leftSection={<IconRefresh size={14} />} onClick={retry}>
            Try again
          </Button>
        )
      }
    >
      {problem?.allowed && <div>Allowed: {problem.allowed}</div>}
      {problem?.errors?.map((fault) => (
        <div key={`${fault.key}:${fault.line}`}>
          <code>{fault.key}</code>
          {fault.line ? ` (line ${fault.line})` : ""}: {sentence(fault.message)}
          {fault.allowed ? ` Allowed: ${fault.allowed}.` : ""}
        </div>
      ))}
    </Note>
  );
}

/** The shape of what comes, so that the page does not jump. */
export function Loading({ rows = 6 }: { rows?: number }) {
  return (
    <div className="panel-body stack" role="status" aria-label="Loading">
      {Array.from({ length: rows }, (_, n) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: the rows are all alike
        <Skeleton key={n} height={14} width={`${92 - ((n * 17) % 40)}%`} />
      ))}
    </div>
  );
}

export function NotFound() {
  return (
    <div className="page">
      <div className="panel">
        <Empty title="There is no such page">
          <p>
            <Link to="/jobs">Go to the jobs</Link>
          </p>
        </Empty>
      </div>
    </div>
  );
}

export function PageError({ error, reset }: ErrorComponentProps) {
  return (
    <div className="page">
      <Note
        tone="bad"
        role="alert"
        title="This page has a fault"
        action={
          <Button variant="default" onClick={reset}>
            Show it again
          </Button>
        }
      >
        {messageOf(error)}
      </Note>
    </div>
  );
}
