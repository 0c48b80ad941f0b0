/* The module _calls: functions of libc and of the interpreter, for cgagent.launch.syscalls.
 *
 * A static program can load neither ctypes nor the library below it. An argument is an int, or bytes, a bytearray or
 * None for a pointer; a result is a long, of which a function that returns an int sets the lower half. The arguments
 * of a variadic function are passed as any other's on x86-64 and aarch64.
 */
#define _GNU_SOURCE
#include <Python.h>
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <unistd.h>

#define MOST 7

typedef long (*Function)(long, long, long, long, long, long, long);

#define NAMED(function) {#function, (Function)(void *)function}
static const struct {
    const char *name;
    Function function;
} functions[] = {
    NAMED(ioctl),
    NAMED(mount),
    NAMED(prctl),
    NAMED(prlimit),
    NAMED(sethostname),
    NAMED(setns),
    NAMED(signalfd),
    NAMED(socket),
    NAMED(statfs),
    NAMED(syscall),
    NAMED(umount2),
    NAMED(unshare),
    NAMED(PyOS_BeforeFork),
    NAMED(PyOS_AfterFork_Child),
    NAMED(PyOS_AfterFork_Parent),
};

static int last_errno;

static int as_long(PyObject *given, long *value) {
    if (given == Py_None) {
        *value = 0;
    } else if (PyBytes_Check(given)) {
        *value = (long)PyBytes_AS_STRING(given);
    } else if (PyByteArray_Check(given)) {
        *value = (long)PyByteArray_AS_STRING(given);
    } else {
        *value = PyLong_AsLong(given);
        return *value != -1 || !PyErr_Occurred();
    }
    return 1;
}

static PyObject *call(PyObject *position, PyObject *const *given, Py_ssize_t count) {
    long values[MOST] = {0};
    if (count > MOST) {
        PyErr_SetString(PyExc_TypeError, "too many arguments");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!as_long(given[i], &values[i])) {
            return NULL;
        }
    }
    Function function = functions[PyLong_AsLong(position)].function;
    errno = 0;
    long result = function(values[0], values[1], values[2], values[3], values[4], values[5], values[6]);
    last_errno = errno;
    return PyLong_FromLong(result);
}

static PyMethodDef caller = {"call", (PyCFunction)(void *)call, METH_FASTCALL, NULL};

static PyObject *function(PyObject *module, PyObject *name) {
    const char *wanted = PyUnicode_AsUTF8(name);
    for (size_t i = 0; wanted && i < sizeof functions / sizeof *functions; i++) {
        if (strcmp(functions[i].name, wanted) == 0) {
            PyObject *position = PyLong_FromSize_t(i);
            PyObject *bound = position ? PyCFunction_New(&caller, position) : NULL;
            Py_XDECREF(position);
            return bound;
        }
    }
    if (wanted) {
        PyErr_SetObject(PyExc_AttributeError, name);
    }
    return NULL;
}

static PyObject *get_errno(PyObject *module, PyObject *unused) {
    return PyLong_FromLong(last_errno);
}

static PyObject *address(PyObject *module, PyObject *data) {
    char *content = PyBytes_AsString(data);
    return content ? PyBytes_FromStringAndSize((char *)&content, sizeof content) : NULL;
}

static PyMethodDef methods[] = {
    {"function", function, METH_O, "The function of that name."},
    {"get_errno", get_errno, METH_NOARGS, "errno after the last call."},
    {"address", address, METH_O, "Where the content of a bytes object lies, as a pointer in memory."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_calls", NULL, -1, methods};

PyObject *PyInit__calls(void) {
    return PyModule_Create(&definition);
}
