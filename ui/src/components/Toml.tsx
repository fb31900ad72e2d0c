// A TOML file with line numbers, quiet colours, and its faults marked.

import { Fragment, type ReactNode } from "react";
import type { Schemas } from "../api/client";

/** Splits a line into coloured parts. Strings over several lines stay plain. */
export function tokens(line: string): { kind: string; text: string }[] {
  const out: { kind: string; text: string }[] = [];
  const push = (kind: string, text: string) => {
    if (text) out.push({ kind, text });
  };
  let rest = line;
  const table = /^\s*\[\[?[^\]]*\]\]?/.exec(rest);
  const key = table ? null : /^(\s*[A-Za-z0-9_."-]+)(\s*=\s*)/.exec(rest);
  if (table) {
    push("table", table[0]);
    rest = rest.slice(table[0].length);
  } else if (key) {
    push("key", key[1]!);
    push("", key[2]!);
    rest = rest.slice(key[0].length);
  }
  for (const part of rest.matchAll(
    /("(?:[^"\\]|\\.)*"|'[^']*')|(#.*$)|(\b(?:true|false|[+-]?\d[\d_.:eETZ+-]*)\b)|([^"'#\w]+|\w+|.)/g,
  )) {
    push(part[1] ? "string" : part[2] ? "comment" : part[3] ? "value" : "", part[0]);
  }
  return out;
}

export function Toml({ text, faults }: { text: string; faults: Schemas["ProfileFault"][] }) {
  const wrong = new Set(faults.map((fault) => fault.line));
  const lines = text.replace(/\n$/, "").split("\n");
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls, so the keyboard must reach it
    <section className="code" aria-label="The profile's text" tabIndex={0}>
      {lines.map((line, index) => {
        const fault = wrong.has(index + 1) || undefined;
        return (
          // biome-ignore lint/suspicious/noArrayIndexKey: a line is its number
          <Fragment key={index}>
            <span className="ln" data-fault={fault}>
              {index + 1}
            </span>
            <span className="tx" data-fault={fault}>
              {coloured(line)}
            </span>
          </Fragment>
        );
      })}
    </section>
  );
}

function coloured(line: string): ReactNode {
  if (line === "") return " ";
  return tokens(line).map((token, index) =>
    token.kind ? (
      // biome-ignore lint/suspicious/noArrayIndexKey: parts never move within their line
      <span key={index} className={`tok-${token.kind}`}>
        {token.text}
      </span>
    ) : (
      token.text
    ),
  );
}
