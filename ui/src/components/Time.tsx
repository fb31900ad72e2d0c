// Times: relative where people compare with now, absolute for whoever hovers.

import { useSyncExternalStore } from "react";
import { absolute, ago, span } from "../format";

const listeners = new Set<() => void>();
let now = new Date();
let timer: ReturnType<typeof setInterval> | undefined;

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  timer ??= setInterval(() => {
    now = new Date();
    for (const each of listeners) each();
  }, 1_000);
  return () => {
    listeners.delete(listener);
    if (listeners.size === 0) {
      clearInterval(timer);
      timer = undefined;
    }
  };
}

/** One clock for the whole page, a second at a time. */
export function useNow(): Date {
  return useSyncExternalStore(subscribe, () => now);
}

/** `3 min ago`; the absolute time on hover. */
export function Ago({ at }: { at: string | null | undefined }) {
  const current = useNow();
  if (!at) return <span className="faint">–</span>;
  const then = new Date(at);
  return (
    <time dateTime={at} title={absolute(then)} className="nowrap">
      {ago(then, current > then ? current : new Date())}
    </time>
  );
}

/** From a start to an end, or until now while there is none. */
export function Took({
  from,
  to,
}: {
  from: string | null | undefined;
  to: string | null | undefined;
}) {
  const current = useNow();
  if (!from) return <span className="faint">–</span>;
  const start = new Date(from);
  const end = to ? new Date(to) : current;
  const title = `${absolute(start)} – ${to ? absolute(end) : "now"}`;
  return (
    <span title={title} className="nowrap">
      {span(Math.max(0, end.getTime() - start.getTime()))}
    </span>
  );
}
