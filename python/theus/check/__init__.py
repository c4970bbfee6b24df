"""The golden rules, looked for in the text of programs; nothing is imported or run."""
