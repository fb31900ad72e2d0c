// Small pieces that say how something stands.

import { Tooltip } from "@mantine/core";
import type { ReactNode } from "react";
import { percent } from "../format";
import type { Tone, Word } from "../words";

/** A state in words and colour. */
export function Badge({ word, children }: { word: Word; children?: ReactNode }) {
  return (
    <Tooltip label={word.hint}>
      <span className="badge" data-tone={word.tone} data-moving={word.moving || undefined}>
        {children ?? word.text}
      </span>
    </Tooltip>
  );
}

export function Tag({
  tone,
  title,
  children,
}: {
  tone?: Tone;
  title?: string;
  children: ReactNode;
}) {
  return (
    <span className="tag" data-tone={tone} title={title}>
      {children}
    </span>
  );
}

/** A bar from 0 to 1. */
export function Bar({
  fraction,
  tone,
  label,
  moving,
  big,
}: {
  fraction: number;
  tone: Tone;
  label: string;
  moving?: boolean;
  big?: boolean;
}) {
  const share = Math.min(1, Math.max(0, fraction));
  return (
    <div
      className={big ? "bar big" : "bar"}
      data-tone={tone}
      data-moving={moving || undefined}
      role="progressbar"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={Math.round(share * 100)}
      aria-valuetext={percent(share)}
    >
      <i style={{ width: `${share * 100}%` }} />
    </div>
  );
}
