// What a function of a design document sees besides the language: CouchDB's globals, and modules of its own design document.
//
// Evaluated once an interpreter, before any foreign code; gives a function that compiles the foreign one. What is needed
// later is taken now, since a script may change every global and every prototype.
(() => {
  "use strict";
  const evaluate = eval; // called by this name, it runs as a script: global and not strict
  const { apply, ownKeys } = Reflect;
  const { freeze, defineProperty, hasOwn } = Object;
  const { parse, stringify } = JSON;
  const { isArray } = Array;
  const global = globalThis;
  const toText = String;
  const bound = (prototype, name) => {
    const original = prototype[name];
    return (self, ...args) => apply(original, self, args);
  };
  const split = bound(String.prototype, "split");
  const slice = bound(String.prototype, "slice");
  const replace = bound(String.prototype, "replace");
  const wellFormed = bound(String.prototype, "toWellFormed");
  const LONGEST = 2000; // characters of a reason or a log line

  const brief = (value) => {
    const text = typeof value == "string" ? value : value instanceof Error ? toText(value) : stringify(value) ?? toText(value);
    return slice(wellFormed(text), 0, LONGEST);
  };

  // What a validation throws that is neither an error nor a refusal, as CouchDB answers it.
  const unknown = (thrown) => {
    const keys = typeof thrown == "object" ? ownKeys(thrown) : [];
    return ["unknown_error", brief(keys.length == 1 ? thrown[keys[0]] : thrown)];
  };

  // A thrown value as CouchDB's query server reads it: the error's name and the reason.
  const describe = (thrown, isValidation) => {
    try {
      if (isArray(thrown) && (thrown[0] === "error" || thrown[0] === "fatal")) return [brief(thrown[1]), brief(thrown[2])];
      if (thrown === null) return ["InternalError", "null was thrown, as it is where memory runs out"];
      if (typeof thrown == "object") {
        for (const name of ["forbidden", "unauthorized"]) if (name in thrown) return [name, brief(thrown[name])];
      }
      if (isValidation && !(thrown instanceof Error)) return unknown(thrown);
      if (typeof thrown != "object") return ["unnamed_error", brief(thrown)];
      if (thrown.error && thrown.reason) return [brief(thrown.error), brief(thrown.reason)];
      if (thrown.name) return [brief(thrown.name), brief(thrown.message ?? thrown)];
      return ["unnamed_error", brief(thrown)];
    } catch {
      return ["unnamed_error", "something that can't be shown was thrown"];
    }
  };

  const frozen = (value) => {
    if (typeof value == "object" && value !== null) {
      freeze(value);
      for (const key of ownKeys(value)) frozen(value[key]);
    }
    return value;
  };

  return (design, source, kind, log) => {
    frozen(design);
    const modules = { __proto__: null };
    let emitted = false;
    let request;

    // `base`: the members of the design document that lead to the requiring module's object.
    const require = (name, base) => {
      const parts = split(toText(name), "/");
      let path = parts[0] === "." || parts[0] === ".." ? base : [];
      let found = design;
      for (const part of parts) {
        if (part === "..") path = path.slice(0, -1);
        else if (part !== "." && part !== "") path = [...path, part];
      }
      for (const key of path) {
        if (typeof found != "object" || found === null || !hasOwn(found, key)) {
          throw ["error", "invalid_require_path", `Object has no property "${key}", which require('${name}') needs.`];
        }
        found = found[key];
      }
      if (typeof found != "string") {
        throw ["error", "invalid_require_path", `Must require a JavaScript string, not: ${typeof found}`];
      }
      const id = path.join("/");
      if (modules[id]) return modules[id].exports;
      const module = (modules[id] = { id, exports: {} });
      try {
        const run = evaluate(`(function (module, exports, require) {${found}\n})`);
        apply(run, global, [module, module.exports, (name) => require(name, path.slice(0, -1))]);
      } catch (error) {
        delete modules[id];
        if (isArray(error)) throw error;
        throw ["error", "compilation_error", `Module require('${name}') raised error ${brief(error)}`];
      }
      return module.exports;
    };

    const globals = {
      isArray,
      toJSON: stringify,
      sum: (values) => values.reduce((sum, value) => sum + value, 0),
      log: (message) => log(brief(message)),
      emit: () => void (emitted = true),
      require: (name) => require(name, []),
    };
    for (const name of ownKeys(globals)) {
      defineProperty(global, name, { value: globals[name], writable: true, configurable: true });
    }

    const compile = () => {
      let compiled;
      try {
        compiled = evaluate(`(${replace(source, /[;\s]+$/, "")}\n)`);
      } catch (error) {
        throw ["error", "compilation_error", `${brief(error)} (${source})`];
      }
      if (typeof compiled == "function") return compiled;
      throw ["error", "compilation_error", `Expression does not eval to a function. (${source})`];
    };

    const filter = (compiled, doc) => !!apply(compiled, design, [doc, request]);
    const map = (compiled, doc) => {
      emitted = false;
      apply(compiled, design, [doc]);
      return emitted;
    };

    // `edit`: the new document and the old one. Whoever writes and the security object are made anew for each call, since a
    // function may change them.
    const validation = (compiled, edit) => {
      const context = parse(request);
      apply(compiled, design, [edit[0], edit[1], context[0], context[1]]);
      return true;
    };

    try {
      const compiled = compile();
      const asked = { __proto__: null, filter, map, validation }[kind];
      const isValidation = kind === "validation";
      const room = {
        __proto__: null,
        begin: (value) => void (request = isValidation ? stringify(value) : value),
        passes: (doc) => {
          try {
            return asked(compiled, doc);
          } catch (error) {
            return describe(error, isValidation);
          }
        },
      };
      // Where the server finds it and no script can put something else.
      defineProperty(global, "couchrep", { value: freeze(room) });
    } catch (error) {
      return describe(error);
    }
  };
})()
